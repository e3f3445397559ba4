# frozen_string_literal: true

# The application that is measured, the same file on every server that speaks the Rack upgrade draft:
# iodine by itself, Puma through Brokerd::Middleware.
#
#   /sub      a client of the channel "bench"; WebSocket or event stream
#   /pub      what arrives is published to the channel
#   /echo     what arrives is sent back
#   /settle   collects garbage; answers with the microseconds of a minor collection

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

  def self.minor_collection_us
    3.times { GC.start }
    times = Array.new(21) do
      started = Process.clock_gettime(Process::CLOCK_MONOTONIC, :float_microsecond)
      GC.start(full_mark: false, immediate_sweep: true)
      Process.clock_gettime(Process::CLOCK_MONOTONIC, :float_microsecond) - started
    end
    times.sort[10].round(1).to_s
  end

  def self.call(env)
    path = env["PATH_INFO"]
    if (handler = HANDLERS[path]) && env["rack.upgrade?"]
      env["rack.upgrade"] = handler
      [200, {}, []]
    elsif path == "/settle"
      [200, { "content-type" => "text/plain" }, [minor_collection_us]]
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
