# frozen_string_literal: true

# The application that is measured, the same file on every server that speaks the Rack upgrade draft:
# iodine by itself, Puma through Brokerd::Middleware.
#
#   /sub      a client of the channel "bench"; WebSocket or event stream
#   /pub      what arrives is published to the channel
#   /echo     what arrives is sent back
#   /settle   collects garbage; answers with the microseconds of a minor collection, twice (see below)

module Bench
  CHANNEL = "bench"

  module Subscriber
    def self.on_open(client)
      client.subscribe(CHANNEL)
    end
  end

  module Publisher
    def self.on_message(client, data)
      client.publish(CHANNEL, data)
    end
  end

  module Echo
    def self.on_message(client, data)
      client.write(data)
    end
  end

  HANDLERS = { "/sub" => Subscriber, "/pub" => Publisher, "/echo" => Echo }.freeze

  # Median of 21 minor collections: the pause alone (marking), and with all of the sweeping, which Ruby
  # otherwise spreads over later allocations.
  def self.minor_collections
    3.times { GC.start }
    pauses = Array.new(21) do
      GC.start(full_mark: false, immediate_sweep: true) # nothing is left to sweep
      collection_us(immediate_sweep: false)
    end
    wholes = Array.new(21) { collection_us(immediate_sweep: true) }
    "#{pauses.sort[10]} #{wholes.sort[10]}"
  end

  def self.collection_us(immediate_sweep:)
    started = Process.clock_gettime(Process::CLOCK_MONOTONIC, :float_microsecond)
    GC.start(full_mark: false, immediate_sweep: immediate_sweep)
    (Process.clock_gettime(Process::CLOCK_MONOTONIC, :float_microsecond) - started).round(1)
  end

  def self.call(env)
    path = env["PATH_INFO"]
    if (handler = HANDLERS[path]) && env["rack.upgrade?"]
      env["rack.upgrade"] = handler
      [200, {}, []]
    elsif path == "/settle"
      [200, { "content-type" => "text/plain" }, [minor_collections]]
    else
      [404, { "content-type" => "text/plain" }, ["no such path\n"]]
    end
  end
end

if defined?(Iodine)
  run Bench
else
  require "brokerd"
  use Brokerd::Middleware
  run Bench
end
