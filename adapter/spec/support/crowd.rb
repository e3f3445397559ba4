# frozen_string_literal: true

module Support
  # Many clients read by one thread.
  class Crowd
    # @param clients [Array<WebSocket, EventStream>]
    def initialize(clients)
      @clients = clients
      @received = clients.to_h { |client| [client, []] }
      @by_socket = clients.to_h { |client| [client.socket, client] }
    end

    # Reads until each has that many messages.
    # @return [Array<Array<String>>] what each received
    def receive(count, limit = 60)
      deadline = Deadline.now + limit
      waiting = @by_socket.dup
      until waiting.empty?
        raise missing(count) if Deadline.now > deadline

        ready, = IO.select(waiting.keys, nil, nil, 1)
        (ready || []).each { |socket| waiting.delete(socket) unless read(@by_socket[socket], count) }
      end
      @received.values
    end

    private

    # False when it has them all.
    def read(client, count)
      raise "a client was closed after #{@received[client].size} messages" unless client.pump

      while (message = client.parse)
        @received[client] << (message.is_a?(Array) ? message.last : message)
      end
      @received[client].size < count
    end

    def missing(count)
      short = @received.values.map(&:size).reject { |size| size == count }
      "#{short.size} clients have only #{short.minmax.inspect} of #{count} messages"
    end
  end
end
