# frozen_string_literal: true

require "socket"

module Support
  # One plain HTTP request on a connection of its own, or on one that is given.
  module Http
    Response = Struct.new(:status, :headers, :body)

    module_function

    def get(address, path = "/", headers: {}, method: "GET", socket: nil, version: "1.1")
      socket ||= address.is_a?(Integer) ? TCPSocket.new("127.0.0.1", address) : UNIXSocket.new(address)
      lines = { "Host" => "127.0.0.1" }.merge(headers).compact
      socket.write("#{method} #{path} HTTP/#{version}\r\n#{lines.map { |name, value| "#{name}: #{value}\r\n" }.join}\r\n")
      read(socket, method)
    end

    def read(socket, method)
      buffer = "".b
      until (stop = buffer.index("\r\n\r\n"))
        Deadline.readable(socket, "a response")
        buffer << socket.readpartial(65_536)
      end
      head = buffer.slice!(0, stop + 4)
      status, headers = Head.parse(head)
      Response.new(status, headers, body(socket, buffer, status, headers, method))
    end

    def body(socket, buffer, status, headers, method)
      return "" if method == "HEAD" || status == 204 || status == 304 || status < 200
      return chunked(socket, buffer) if headers["transfer-encoding"] == ["chunked"]

      length = headers.key?("content-length") ? headers["content-length"].first.to_i : nil
      while length.nil? || buffer.bytesize < length
        Deadline.readable(socket, "a response's body")
        begin
          buffer << socket.readpartial(65_536)
        rescue EOFError
          break
        end
      end
      buffer
    end

    def chunked(socket, buffer)
      body = "".b
      loop do
        while (stop = buffer.index("\r\n"))
          size = buffer.byteslice(0, stop).to_i(16)
          break if buffer.bytesize < stop + 2 + size + 2

          buffer.slice!(0, stop + 2)
          body << buffer.slice!(0, size)
          buffer.slice!(0, 2)
          return body if size.zero?
        end
        Deadline.readable(socket, "a chunk")
        buffer << socket.readpartial(65_536)
      end
    end
  end
end
