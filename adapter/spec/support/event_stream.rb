# frozen_string_literal: true

require "socket"

module Support
  # A small EventSource client that parses as the WHATWG text says.
  class EventStream
    Event = Struct.new(:type, :data, :id)

    attr_reader :socket, :status, :headers, :comments, :retries

    def self.connect(address, path = "/", headers: {}, &block)
      new(address, path, headers).tap { |stream| block&.call(stream) }
    end

    def initialize(address, path, headers)
      @socket = address.is_a?(Integer) ? TCPSocket.new("127.0.0.1", address) : UNIXSocket.new(address)
      lines = { "Host" => "127.0.0.1", "Accept" => "text/event-stream" }.merge(headers).compact
      @socket.write("GET #{path} HTTP/1.1\r\n#{lines.map { |name, value| "#{name}: #{value}\r\n" }.join}\r\n")
      @buffer = "".b
      @events = []
      @comments = []
      @retries = []
      @data = nil
      read_head
    end

    # The next event's data, or nil at the end of the stream.
    def receive(limit = Deadline::LIMIT)
      event(limit)&.data
    end

    def event(limit = Deadline::LIMIT)
      while @events.empty?
        return nil unless fill(limit)
      end
      @events.shift
    end

    def comment(limit = Deadline::LIMIT)
      while @comments.empty?
        return nil unless fill(limit)
      end
      @comments.shift
    end

    def ended?(limit = Deadline::LIMIT)
      nil while fill(limit)
      true
    end

    def pump
      chunk = @socket.read_nonblock(262_144, exception: false)
      return false if chunk.nil?

      take(chunk) if chunk.is_a?(String)
      true
    rescue SystemCallError
      false
    end

    def parse
      @events.shift&.data
    end

    def drop
      @socket.close
    end

    private

    def fill(limit)
      Deadline.readable(@socket, "an event", limit)
      take(@socket.readpartial(262_144))
      true
    rescue EOFError, Errno::ECONNRESET
      false
    end

    def take(chunk)
      @buffer << chunk
      at = 0
      while (stop = @buffer.index(/\r\n|\n|\r(?!\z)/n, at))
        line(@buffer.byteslice(at, stop - at).force_encoding(Encoding::UTF_8))
        at = stop + ($~[0].bytesize)
      end
      @buffer = @buffer.byteslice(at..) if at.positive?
    end

    def line(text)
      raise "invalid UTF-8 in the stream: #{text.inspect}" unless text.valid_encoding?
      return dispatch if text.empty?

      name, value = text.split(":", 2)
      value = (value || "").delete_prefix(" ")
      case name
      when "" then @comments << value
      when "data" then (@data ||= []) << value
      when "event" then @type = value
      when "id" then @id = value
      when "retry" then @retries << value.to_i
      end
    end

    def dispatch
      @events << Event.new(@type || "message", @data.join("\n"), @id) if @data
      @data = @type = nil
    end

    def read_head
      until (stop = @buffer.index("\r\n\r\n"))
        Deadline.readable(@socket, "the response's head")
        @buffer << @socket.readpartial(65_536)
      end
      head = @buffer.slice!(0, stop + 4)
      @status, @headers = Head.parse(head)
      rest = @buffer
      @buffer = "".b
      take(rest)
    end
  end
end
