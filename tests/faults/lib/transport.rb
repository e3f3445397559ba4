# frozen_string_literal: true

module Faults
  # Where the broker listens, where the proxy's routes lead, and what processes are told.
  class Transport
    attr_reader :listen, :options

    # @param host [String] where the broker is seen by the proxy
    def initialize(folder, name, host: "127.0.0.1")
      @folder = folder
      @name = name
      @port = Support::Ports.free
      @host = host
      @listen = name == "ipc" ? [] : ["tcp://#{host}:#{@port}"]
      @options = name == "ipc" ? [] : ["--secret-file", secret_file]
    end

    # A new route's place for processes, and the argument for the proxy.
    # @return [Array(String, String)] URL and argument
    def route(number)
      if @name == "ipc"
        path = File.join(@folder, "route-#{number}.sock")
        ["ipc://#{path}", "unix:#{path}=unix:#{File.join(@folder, 'broker.sock')}"]
      else
        port = Support::Ports.free
        ["tcp://127.0.0.1:#{port}", "tcp:127.0.0.1:#{port}=tcp:#{@host}:#{@port}"]
      end
    end

    # For processes and brokerctl.
    def env
      @name == "ipc" ? {} : { "BROKERD_SECRET_FILE" => secret_file }
    end

    private

    def secret_file
      @secret_file ||= File.join(@folder, "secret").tap { |path| File.write(path, "#{SecureRandom.hex(32)}\n", perm: 0o600) }
    end
  end
end
