# frozen_string_literal: true

module Brokerd
  # @api private
  # The head of an upgrade's response: ours, then the application's own headers in Rack 2 form (several
  # values joined by newlines) or Rack 3 form (an Array).
  module ResponseHead
    # What belongs to the connection or to a body that is not sent.
    OURS = %w[connection upgrade keep-alive transfer-encoding content-length trailer status te
              sec-websocket-accept sec-websocket-extensions sec-websocket-version].freeze
    WEBSOCKET_ONLY = %w[content-type content-encoding sec-websocket-protocol].freeze
    STREAM_ONLY = %w[content-type content-encoding cache-control x-accel-buffering].freeze
    NAME = /\A[!#$%&'*+\-.^_`|~0-9A-Za-z]+\z/.freeze
    BAD_VALUE = /[\x00-\x08\x0a-\x1f\x7f]/n.freeze
    private_constant :OURS, :WEBSOCKET_ONLY, :STREAM_ONLY, :NAME, :BAD_VALUE

    module_function

    # @return [String] everything up to and with the empty line
    def build(env, kind, headers, deflate)
      kind == :websocket ? websocket(env, headers, deflate) : event_stream(headers)
    end

    def websocket(env, headers, deflate)
      head = +"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
      head << "Sec-WebSocket-Accept: #{Handshake.accept(env['HTTP_SEC_WEBSOCKET_KEY'])}\r\n"
      head << "Sec-WebSocket-Extensions: #{deflate}\r\n" if deflate
      protocol = subprotocol(env, headers)
      head << "Sec-WebSocket-Protocol: #{protocol}\r\n" if protocol
      append(head, headers, WEBSOCKET_ONLY)
    end

    def event_stream(headers)
      head = +"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n" \
              "X-Accel-Buffering: no\r\nConnection: close\r\n"
      append(head, headers, STREAM_ONLY)
    end

    # The application chooses one that was offered; another would make the browser fail.
    def subprotocol(env, headers)
      _, chosen = headers.find { |name, _| name.to_s.casecmp?("sec-websocket-protocol") }
      chosen = Array(chosen).first
      return if chosen.nil?
      return chosen if Handshake.offered?(env["HTTP_SEC_WEBSOCKET_PROTOCOL"], chosen)

      Brokerd.logger.warn("brokerd") { "the subprotocol #{chosen.inspect} was not offered by the client; it is left out" }
      nil
    end

    def append(head, headers, left_out)
      headers.each do |name, values|
        name = name.to_s
        lower = name.downcase
        next if OURS.include?(lower) || left_out.include?(lower) || lower.start_with?("rack.")

        lines(values).each { |value| line(head, name, value) }
      end
      (head << "\r\n").b
    end

    def lines(values)
      values.is_a?(Array) ? values.map(&:to_s) : values.to_s.split("\n")
    end

    def line(head, name, value)
      if NAME.match?(name) && !BAD_VALUE.match?(value.b)
        head << name << ": " << value.b << "\r\n"
      else
        Brokerd.logger.warn("brokerd") { "the header #{name.inspect} is malformed; it is left out" }
      end
    end

    private_class_method :websocket, :event_stream, :subprotocol, :append, :lines, :line
  end
end
