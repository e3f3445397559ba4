# frozen_string_literal: true

require "open3"

module Faults
  # The broker, which is killed, stopped and started again. brokerctl uses its unix socket, whatever the processes use.
  class Broker
    attr_reader :pid, :starts

    # @param prefix [Array<String>] what runs it, in another network for one
    def initialize(folder, listen: [], options: [], env: {}, prefix: [])
      @socket = File.join(folder, "broker.sock")
      @log = File.join(folder, "broker.log")
      @command = [*prefix, Support::Broker.binary("brokerd"), *["ipc://#{@socket}", *listen].flat_map { |url| ["--listen", url] }, *options]
      @env = env
      @starts = 0
      start
    end

    attr_reader :socket

    def start
      @child = Support::Child.new({}, @command, log: @log)
      @pid = @child.pid
      @starts += 1
      Support::Deadline.wait_for("brokerd to listen") do
        raise "brokerd ended: #{@child.output[-2000..] || @child.output}" unless @child.alive?

        listening?
      end
    end

    def alive?
      @child.alive?
    end

    def kill
      @child.signal("KILL")
      @child.wait
    end

    def stop
      @child.signal("CONT")
      @child.stop
    end

    def log
      @child.output
    end

    def ctl(*arguments)
      Open3.capture2e({ "BROKERD_URL" => "ipc://#{@socket}", **@env }, Support::Broker.binary("brokerctl"), *arguments)
    end

    # @return [Integer] bytes
    def ring_size
      File.size("#{@socket}.journal")
    end

    def stats
      output, status = ctl("stats", "--json")
      status.success? ? JSON.parse(output) : raise("brokerctl stats: #{output}")
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
