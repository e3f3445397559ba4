# frozen_string_literal: true

require "weakref"

module Brokerd
  module PubSub
    # @api private
    # Broker pub/sub for the client of any server: an object with `write` and `open?`. Its subscriptions end
    # with the first `open?` that is false: at a delivery, when somebody asks, or within a second; and, for a
    # client that is dropped without a word, when it has been garbage-collected: nothing here keeps it alive.
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

      Entry = Struct.new(:client, :subscriptions) # a WeakRef; { [name, pattern] => Subscription }
      private_constant :Entry

      @clients = {} # object_id => Entry
      @lock = Mutex.new

      class << self
        def subscribe(client, to, is_pattern, as, block)
          is_pattern = is_pattern ? true : false
          reference = WeakRef.new(client)
          subscription = Subscription.open(to, is_pattern, receiver(reference, as, block))
          return unless subscription

          older = @lock.synchronize do
            mine = (@clients[client.object_id] ||= Entry.new(reference, {})).subscriptions
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
          @lock.synchronize { @clients[client.object_id]&.subscriptions&.delete(key) }&.cancel || false
        end

        def close(client)
          forget(client.object_id)
        end

        private

        def forget(id)
          @lock.synchronize { @clients.delete(id) }&.subscriptions&.each_value(&:cancel)
        end

        # The client, or nil when it was garbage-collected.
        def target(reference)
          reference.__getobj__
        rescue WeakRef::RefError
          nil
        end

        # What a subscription calls. It must not hold the client itself.
        def receiver(reference, as, block)
          write = writer(as) unless block
          lambda do |channel, message|
            client = target(reference)
            next unless client&.open?

            block ? block.call(channel, message) : write.call(client, message)
          end
        end

        def writer(as)
          case as
          when nil then ->(client, message) { client.write(message) }
          when :text then ->(client, message) { client.write(message.force_encoding(Encoding::UTF_8).scrub) }
          when :binary then ->(client, message) { client.write(message.force_encoding(Encoding::BINARY)) }
          else raise ArgumentError, "as: is :text, :binary or nil, not #{as.inspect}"
          end
        end

        # In a method of its own, so that no variable of the sweeper keeps a client while it sleeps.
        def look_at(id, reference)
          client = target(reference)
          client&.open? || forget(id)
        end

        def sweep
          return if @sweeper&.alive?

          @sweeper = Thread.new do
            until (clients = @lock.synchronize { @clients.transform_values(&:client) }).empty?
              clients.each { |id, reference| look_at(id, reference) }
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
