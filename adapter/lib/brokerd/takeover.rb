# frozen_string_literal: true

require "socket"

module Brokerd
  # @api private
  # Takes a connection out of the server's hands: full hijack, and the bytes that the server had already
  # read behind the request. The extension serves a duplicate of the descriptor.
  #
  # The Ruby IO is put aside and closed later from another thread. Closing it inside the application would
  # leave an event-driven server's reactor with a registration that fires for ever on the duplicate.
  module Takeover
    class << self
      # Can this request's connection be taken over? Says why not, once for each reason.
      def possible?(env)
        reason = obstacle(env)
        return true unless reason

        warn_once(reason)
        false
      end

      # @yieldparam fd [Integer] the connection, valid during the block
      # @yieldparam received [String] bytes behind the request
      # @return [Object, nil] the block's result; nil when the connection is gone or cannot be taken, which
      #   is logged
      def call(env)
        io, received = hijack(env)
        socket = real_socket(io)
        return refuse(io) unless socket

        begin
          yield socket.fileno, received
        ensure
          Aside.put(io)
        end
      rescue IOError, SystemCallError => e
        Brokerd.logger.info("brokerd") { "a connection was gone before its upgrade: #{e.message}" }
        nil
      end

      private

      # HTTP/1 servers with full hijack have rack.hijack; its presence is what counts (rack.hijack? means
      # different things in Rack 2 and 3).
      def obstacle(env)
        return "this server has no full hijack, so WebSocket and EventSource requests stay ordinary requests" \
          unless env["rack.hijack"].respond_to?(:call)

        tls = env["puma.socket"] || falcon_io(env)
        return unless tls && !tls.is_a?(BasicSocket) && ssl?(tls)

        "TLS connections of this server cannot be upgraded; end TLS in front of it, in a proxy"
      end

      def warn_once(reason)
        @warned ||= {}
        return if @warned[reason]

        @warned[reason] = true
        Brokerd.logger.warn("brokerd") { reason }
      end

      def ssl?(io)
        (defined?(OpenSSL::SSL::SSLSocket) && io.is_a?(OpenSSL::SSL::SSLSocket)) ||
          (defined?(::Puma::MiniSSL::Socket) && io.is_a?(::Puma::MiniSSL::Socket))
      end

      def falcon_io(env)
        request = env["protocol.http.request"]
        return unless request.respond_to?(:connection)

        stream = request.connection.respond_to?(:stream) ? request.connection.stream : nil
        stream.respond_to?(:io) ? stream.io : nil
      end

      def hijack(env)
        request = env["protocol.http.request"]
        return falcon(env, request) if request.respond_to?(:hijack!) && request.respond_to?(:hijack?) && request.hijack?

        owner = owner_of(env["rack.hijack"])
        io = env["rack.hijack"].call || env["rack.hijack_io"]
        [io, read_already(owner)]
      end

      # The object behind rack.hijack: Puma's client or Unicorn's parser.
      def owner_of(hijack)
        case hijack
        when Method then hijack.receiver
        when Proc then hijack.binding.receiver
        else hijack
        end
      rescue ArgumentError
        nil # a proc written in C has no binding
      end

      def read_already(owner)
        if owner.respond_to?(:hijacked) # Puma::Client
          buffer = owner.instance_variable_get(:@buffer)
        elsif owner.respond_to?(:hijacked?) && owner.respond_to?(:buf) # Unicorn, Pitchfork
          buffer = owner.buf
        end
        buffer.is_a?(String) ? buffer.b : "".b
      end

      # Its own rack.hijack would lose what its stream has read.
      def falcon(env, request)
        stream = request.hijack!
        raise IOError, "the connection is closed" unless stream

        env["rack.hijack_io"] = stream
        buffer = stream.instance_variable_get(:@read_buffer)
        [stream.io, buffer.is_a?(String) ? buffer.b : "".b]
      end

      def real_socket(io)
        return io if io.is_a?(BasicSocket)
        return if io.nil? || ssl?(io)

        inner = io.respond_to?(:to_io) ? io.to_io : nil
        inner if inner.is_a?(BasicSocket) || inner.instance_of?(IO)
      end

      def refuse(io)
        warn_once("#{io.class} is not a socket that can be taken over")
        io.close if io.respond_to?(:close)
        nil
      end
    end

    # Ruby IOs whose descriptors were duplicated, closed a moment later by a thread of their own.
    module Aside
      DELAY = 0.1 # seconds; a reactor's turn is far shorter
      private_constant :DELAY

      @queue = Thread::Queue.new

      class << self
        def put(io)
          @queue << [now + DELAY, io]
          return if @thread&.alive? && @pid == Process.pid

          @pid = Process.pid
          @thread = Thread.new { run }
          @thread.thread_variable_set(:fork_safe, true)
          @thread.name = "brokerd closer"
        end

        private

        def run
          loop do
            due, io = @queue.pop
            wait = due - now
            sleep(wait) if wait.positive?
            io.close unless io.closed?
          rescue IOError, SystemCallError
            next
          end
        end

        def now
          Process.clock_gettime(Process::CLOCK_MONOTONIC)
        end
      end
    end
    private_constant :Aside
  end
end
