# frozen_string_literal: true

require "socket"

module Support
  # TCP ports of 127.0.0.1 that nobody uses.
  module Ports
    module_function

    def free
      server = TCPServer.new("127.0.0.1", 0)
      server.addr[1]
    ensure
      server&.close
    end
  end
end
