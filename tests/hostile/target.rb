# frozen_string_literal: true

require "json"
require "open3"
require_relative "../../adapter/spec/support/deadline"
require_relative "../../adapter/spec/support/ports"
require_relative "../../adapter/spec/support/child"
require_relative "../../adapter/spec/support/broker"
require_relative "../../adapter/spec/support/web_socket"
require_relative "../../adapter/spec/support/http"
require_relative "../../adapter/spec/support/server"

module Hostile
  # One Puma with its broker, what attacks it, and what well-behaved clients see meanwhile.
  class Target
    ROOT = File.expand_path("../..", __dir__)
    LOAD = File.join(File.dirname(Support::Broker.binary("brokerd")), "ws_load")

    def self.open(**options)
      Dir.mktmpdir("brokerd-hostile") do |folder|
        target = new(folder, **options)
        yield target
      ensure
        target&.stop
      end
    end

    # @param env [Hash] settings, as environment variables
    def initialize(folder, env: {})
      @folder = folder
      @broker = Support::Broker.new(folder)
      rackup = File.join(__dir__, "app.ru")
      @server = Support::Server.new(folder, "eval(File.read(#{rackup.dump}), binding, #{rackup.dump})", url: @broker.url, env: env)
      @attacks = []
    end

    def stop
      @attacks.each(&:stop)
      @server&.stop
      @broker&.stop
    end

    # @return [Hash] Brokerd.stats with objects, descriptors, sockets, rss_kib, after a collection
    def counts
      socket = TCPSocket.new("127.0.0.1", @server.port)
      JSON.parse(Support::Http.get(@server.port, "/counts", socket: socket, headers: { "Connection" => "close" }).body, symbolize_names: true)
    ensure
      socket&.close
    end

    # Starts attack.rb and waits until its connections stand.
    # @return [Support::Child]
    def attack(kind, count, seconds, seed = 1)
      log = File.join(@folder, "#{kind}-#{@attacks.size}.log")
      child = Support::Child.new({ "RUBYOPT" => nil }, [RbConfig.ruby, "--disable-gems", File.join(__dir__, "attack.rb"), kind, @server.port, count, seconds, seed].map(&:to_s), log: log)
      @attacks << child
      Support::Deadline.wait_for("#{kind} to stand", 120) { child.output.include?("ready") || (child.alive? ? nil : raise(child.output)) }
      child
    end

    # What became of it, once it is over.
    def outcome(attack, limit)
      attack.wait(limit)
      JSON.parse(attack.output.lines.last, symbolize_names: true)
    rescue JSON::ParserError
      raise attack.output
    end

    # Well-behaved clients of a broadcast at a fixed rate: every message at every client, once, in order.
    # @return [Hash] what ws_load measured
    def broadcast(clients:, rate:, size:, seconds:)
      output, status = Open3.capture2e(LOAD, "broadcast", "--json", "--quiet", "--url", "ws://127.0.0.1:#{@server.port}/sub", "--clients", clients.to_s,
                                       "--rate", rate.to_s, "--size", size.to_s, "--seconds", seconds.to_s, "--pids", @server.pid.to_s)
      raise "well-behaved clients were harmed: #{output}#{@server.log[-2000..]}" unless status.success?

      JSON.parse(output.lines.last, symbolize_names: true)
    end

    # Runs the block; the largest resident memory meanwhile, in KiB.
    def peak
      most = resident
      watch = Thread.new { loop { most = [most, resident].max; sleep 0.02 } }
      yield
      most
    ensure
      watch&.kill
    end

    def resident
      File.read("/proc/#{@server.pid}/status")[/VmRSS:\s+(\d+)/, 1].to_i
    end

    def wait_for(what, limit, &block)
      Support::Deadline.wait_for(what, limit, &block)
    end
  end
end
