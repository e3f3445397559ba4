# frozen_string_literal: true

require "open3"
require "socket"

module Support
  # A real brokerd on a unix socket.
  class Broker
    BUILD = File.expand_path("../../../build/bin", __dir__)

    def self.binary(name)
      given = ENV["BROKERD_BIN"]
      folder = given ? File.dirname(given) : BUILD
      File.join(folder, name).tap { |path| raise "#{path} is not built" unless File.executable?(path) }
    end

    attr_reader :socket

    def initialize(folder, options = [])
      @socket = File.join(folder, "broker.sock")
      @log = File.join(folder, "broker.log")
      @options = options
      start
    end

    def url
      "ipc://#{@socket}"
    end

    def start
      @child = Child.new({}, [self.class.binary("brokerd"), "--listen", url, *@options], log: @log)
      Deadline.wait_for("brokerd to listen") do
        raise "brokerd ended: #{@child.output}" unless @child.alive?

        listening?
      end
    end

    def stop(signal = "TERM")
      @child.stop(signal)
    end

    def pid
      @child.pid
    end

    def output
      @child.output
    end

    # @return [Array(String, Process::Status)] output and status of brokerctl
    def ctl(*arguments, input: "")
      Open3.capture2e({ "BROKERD_URL" => url }, self.class.binary("brokerctl"), *arguments, stdin_data: input)
    end

    def publish(channel, message, *options)
      output, status = ctl("publish", *options, channel, message)
      raise "brokerctl publish: #{output}" unless status.success?
    end

    private

    def listening?
      UNIXSocket.new(@socket).close
      true
    rescue SystemCallError
      false
    end
  end
end
