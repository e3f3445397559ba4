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
      @listen = name == "ipc" ? [] : ["#{scheme}://#{host}:#{@port}"]
      @options = name == "ipc" ? [] : ["--secret-file", secret_file]
      @options += certify if name == "tls"
    end

    # A new route's place for processes, and the argument for the proxy.
    # @return [Array(String, String)] URL and argument
    def route(number)
      if @name == "ipc"
        path = File.join(@folder, "route-#{number}.sock")
        ["ipc://#{path}", "unix:#{path}=unix:#{File.join(@folder, 'broker.sock')}"]
      else
        port = Support::Ports.free
        ["#{scheme}://127.0.0.1:#{port}", "tcp:127.0.0.1:#{port}=tcp:#{@host}:#{@port}"]
      end
    end

    # For processes and brokerctl.
    def env
      { "BROKERD_SECRET_FILE" => @name == "ipc" ? nil : secret_file, "BROKERD_CA_FILE" => @authority&.file }.compact
    end

    private

    def scheme
      @name == "tls" ? "tls+tcp" : "tcp"
    end

    # A certificate for the name by which processes know the broker: the proxy's.
    def certify
      require "support/certificates"
      @authority = Support::Authority.new(@folder, "faults")
      cert, key = @authority.issue("broker", "IP:127.0.0.1")
      ["--tls-cert", cert, "--tls-key", key]
    end

    def secret_file
      @secret_file ||= File.join(@folder, "secret").tap { |path| File.write(path, "#{SecureRandom.hex(32)}\n", perm: 0o600) }
    end
  end
end
