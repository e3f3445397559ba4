# frozen_string_literal: true

require "digest"
require "securerandom"
require "socket"

module Support
  # A small WebSocket client, strict about what it receives and free in what it sends.
  class WebSocket
    GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

    attr_reader :socket, :head, :status, :headers
    attr_accessor :pongs, :rsv

    # @param extra [String] bytes sent together with the request, such as a first frame
    def self.connect(address, path = "/", headers: {}, extra: "", &block)
      new(address, path, headers, extra).tap { |client| block&.call(client) }
    end

    def self.request(path, headers, key)
      lines = { "Host" => "127.0.0.1", "Upgrade" => "websocket", "Connection" => "Upgrade",
                "Sec-WebSocket-Key" => key, "Sec-WebSocket-Version" => "13" }.merge(headers).compact
      "GET #{path} HTTP/1.1\r\n#{lines.map { |name, value| "#{name}: #{value}\r\n" }.join}\r\n"
    end

    def initialize(address, path, headers, extra)
      @socket = address.is_a?(Integer) ? TCPSocket.new("127.0.0.1", address) : UNIXSocket.new(address)
      @key = SecureRandom.base64(16)
      @buffer = "".b
      @at = 0
      @pongs = true
      @socket.write(self.class.request(path, headers, @key) + extra)
      read_head
    end

    # Nothing but the request was answered: 101 and the right accept value.
    def upgraded?
      @status == 101 && @headers["sec-websocket-accept"] == [Digest::SHA1.base64digest(@key + GUID)]
    end

    def self.frame(opcode, payload, fin: true, mask: true, rsv: 0)
      payload = payload.b
      first = (fin ? 0x80 : 0) | (rsv << 4) | opcode
      bit = mask ? 0x80 : 0
      head =
        if payload.bytesize < 126 then [first, bit | payload.bytesize].pack("CC")
        elsif payload.bytesize < 65_536 then [first, bit | 126, payload.bytesize].pack("CCn")
        else [first, bit | 127, payload.bytesize].pack("CCQ>")
        end
      mask ? head + masked(payload) : head + payload
    end

    def self.masked(payload)
      key = SecureRandom.bytes(4)
      return key + payload if payload.empty?

      words = key.unpack1("N")
      padded = payload + ("\0" * (-payload.bytesize % 4))
      key + padded.unpack("N*").map { |word| word ^ words }.pack("N*").byteslice(0, payload.bytesize)
    end

    def send_frame(opcode, payload, **options)
      @socket.write(self.class.frame(opcode, payload, **options))
    end

    def text(message)
      send_frame(TEXT, message)
    end

    def binary(message)
      send_frame(BINARY, message)
    end

    def close(code = 1000)
      send_frame(CLOSE, [code].pack("n"))
    end

    # The next message: a UTF-8 String for text, a binary one else; nil at the end of the stream.
    def receive(limit = Deadline::LIMIT)
      opcode, payload = receive_frame(limit)
      case opcode
      when TEXT then payload.force_encoding(Encoding::UTF_8)
      when BINARY then payload
      when PING
        send_frame(PONG, payload) if @pongs
        receive(limit)
      when PONG then receive(limit)
      when CLOSE
        @close_payload = payload
        nil
      end
    end

    # [opcode, payload], or nil at the end of the stream.
    def receive_frame(limit = Deadline::LIMIT)
      loop do
        frame = parse
        return frame if frame
        return nil unless fill(limit)
      end
    end

    # The code of the close frame that comes next (messages before it are skipped): 1005 for an empty one,
    # nil when the stream ends without.
    def close_code(limit = Deadline::LIMIT)
      while (opcode, payload = receive_frame(limit))
        return payload.empty? ? 1005 : payload.unpack1("n") if opcode == CLOSE
      end
    end

    # Ends as a browser does: answers a close frame, reads to the end, closes.
    def finish(limit = Deadline::LIMIT)
      while (opcode, payload = receive_frame(limit))
        send_frame(CLOSE, payload) if opcode == CLOSE && !@answered
        @answered = true if opcode == CLOSE
      end
    rescue Errno::EPIPE, Errno::ECONNRESET
      nil
    ensure
      @socket.close
    end

    # Reads what is there without waiting; false at the end.
    def pump
      chunk = @socket.read_nonblock(262_144, exception: false)
      return false if chunk.nil?

      @buffer << chunk if chunk.is_a?(String)
      true
    rescue SystemCallError
      false
    end

    # The next frame that is there already, or nil. With `rsv` true RSV1 is allowed, and stands in the opcode as 0x40.
    def parse
      return if @buffer.bytesize - @at < 2

      first, second = @buffer.getbyte(@at), @buffer.getbyte(@at + 1)
      raise "a masked frame from the server" if second & 0x80 != 0

      length, header = length_of(second)
      return if length.nil? || @buffer.bytesize - @at < header + length

      payload = @buffer.byteslice(@at + header, length)
      @at += header + length
      compact if @at > 1_048_576 || @at == @buffer.bytesize
      raise "reserved bits #{first >> 4 & 7}" if first & 0x70 != 0 && !@rsv
      raise "a fragment" if first & 0x80 == 0

      [first & (@rsv ? 0x4f : 0x0f), payload]
    end

    # Gone without a word.
    def drop
      @socket.close
    end

    def reset
      @socket.setsockopt(Socket::SOL_SOCKET, Socket::SO_LINGER, [1, 0].pack("ii"))
      @socket.close
    end

    private

    def length_of(second)
      case second & 0x7f
      when 126 then @buffer.bytesize - @at < 4 ? nil : [@buffer.byteslice(@at + 2, 2).unpack1("n"), 4]
      when 127 then @buffer.bytesize - @at < 10 ? nil : [@buffer.byteslice(@at + 2, 8).unpack1("Q>"), 10]
      else [second & 0x7f, 2]
      end
    end

    def compact
      @buffer = @buffer.byteslice(@at..) || "".b
      @at = 0
    end

    def fill(limit)
      Deadline.readable(@socket, "a WebSocket frame", limit)
      @buffer << @socket.readpartial(262_144)
      true
    rescue EOFError, Errno::ECONNRESET
      false
    end

    def read_head
      until (stop = @buffer.index("\r\n\r\n"))
        raise "the server closed without an answer: #{@buffer.inspect}" unless fill(Deadline::LIMIT)
      end
      @head = @buffer.slice!(0, stop + 4)
      @status, @headers = Head.parse(@head)
    end
  end

  # The head of an HTTP response.
  module Head
    module_function

    # @return [Array(Integer, Hash{String => Array<String>})]
    def parse(text)
      first, *lines = text.split("\r\n")
      headers = lines.each_with_object(Hash.new { |h, k| h[k] = [] }) do |line, all|
        name, value = line.split(":", 2)
        all[name.downcase] << value.strip
      end
      [first.split(" ", 3)[1].to_i, headers]
    end
  end
end
