# frozen_string_literal: true

module Brokerd
  module PubSub
    # @api private
    # Broker pub/sub for the client of any server: an object with `write` and `open?`. Its subscriptions end
    # with the first `open?` that is false: at a delivery, when somebody asks, or within a second.
    module ForeignClient
      # @return [Integer] the version of the pub/sub interface
      def pubsub?
        0
      end

      # @return [true, nil] nil when the client is closed
      def subscribe(to = nil, is_pattern = false, match: nil, as: nil, handler: nil, **options, &block)
        to = options.fetch(:to) if options.key?(:to)
        return unless open?

        ForeignClient.subscribe(self, to, is_pattern || match, as, block || handler)
      end

      # @return [Boolean] whether there was one
      def unsubscribe(from = nil, is_pattern = false, match: nil, **options)
        from = options.fetch(:to) if options.key?(:to)
        ForeignClient.unsubscribe(self, from, is_pattern || match)
      end

      # @return [Boolean]
      def publish(to, message, engine = nil)
        Brokerd.publish(to, message, engine)
      end

      def open?
        open = super
        ForeignClient.close(self) unless open
        open
      end

      SWEEP = 1 # seconds between two looks for clients that were closed
      private_constant :SWEEP

      @clients = {}.compare_by_identity # client => { [name, pattern] => Subscription }
      @lock = Mutex.new

      class << self
        def subscribe(client, to, is_pattern, as, block)
          is_pattern = is_pattern ? true : false
          receiver = block || writer(client, as)
          subscription = Subscription.open(to, is_pattern, guarded(client, receiver))
          return unless subscription

          older = @lock.synchronize do
            mine = (@clients[client] ||= {})
            key = [subscription.name, is_pattern]
            before = mine[key]
            mine[key] = subscription
            before
          end
          older&.cancel
          sweep
          true
        end

        def unsubscribe(client, from, is_pattern)
          key = [from.to_s, is_pattern ? true : false]
          @lock.synchronize { @clients[client]&.delete(key) }&.cancel || false
        end

        def close(client)
          @lock.synchronize { @clients.delete(client) }&.each_value(&:cancel)
        end

        private

        def guarded(client, receiver)
          ->(channel, message) { receiver.call(channel, message) if client.open? }
        end

        def writer(client, as)
          case as
          when nil then ->(_, message) { client.write(message) }
          when :text then ->(_, message) { client.write(message.force_encoding(Encoding::UTF_8).scrub) }
          when :binary then ->(_, message) { client.write(message.force_encoding(Encoding::BINARY)) }
          else raise ArgumentError, "as: is :text, :binary or nil, not #{as.inspect}"
          end
        end

        def sweep
          return if @sweeper&.alive?

          @sweeper = Thread.new do
            until (clients = @lock.synchronize { @clients.keys }).empty?
              clients.each { |client| client.open? || close(client) }
              sleep SWEEP
            end
          end
          @sweeper.thread_variable_set(:fork_safe, true)
          @sweeper.name = "brokerd sweeper"
        end
      end
    end
  end
end
