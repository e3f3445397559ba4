# frozen_string_literal: true

module Brokerd
  # @api private
  # What the extension's callback threads call besides the application: log lines, failed callbacks, gaps,
  # interest for engines.
  module Callbacks
    class << self
      # One line from the I/O thread, whose levels are numbered as Logger's.
      def log(level, line)
        Brokerd.logger.add(level, line, "brokerd")
      end

      # A callback of the application raised.
      # @param target [Client, Subscription, nil]
      def failed(target, callback, error)
        Brokerd.logger.error("brokerd") { describe(callback, error) }
        return unless target.is_a?(Client)

        handler = target.handler
        handler.on_error(target, error) if handler.respond_to?(:on_error)
      rescue StandardError => e
        Brokerd.logger.error("brokerd") { describe(:on_error, e) }
      end

      # An attached engine raised, though the rules forbid it.
      def engine_failed(engine, method, error)
        Brokerd.logger.error("brokerd") { "engine #{engine.class}: #{describe(method, error)}" }
        false
      end

      # Messages that somebody will not see.
      # @param subscription [Subscription, nil] nil for the whole process
      # @param dropped [Boolean] dropped here since its block is too slow, rather than gone at the broker
      def gap(subscription, count, dropped)
        reason = dropped ? "the block is slower than its messages come" : "the broker no longer has them"
        subscription.on_gap&.call(count, reason) if subscription
        return if subscription && !dropped # the whole process is told of those once

        Brokerd.config.on_gap&.call(count, reason)
      end

      def report(token)
        PubSub.report(token)
      end

      def interest(token, name, is_pattern, present)
        PubSub.interest(token, name, is_pattern, present)
      end

      # The I/O thread was started in this process.
      def started
        Shutdown.install
        PubSub.started
      end

      # It could not be started; said once for each reason and process.
      def start_failed(reason)
        key = [Process.pid, reason]
        return if @start_failed == key

        @start_failed = key
        Brokerd.logger.error("brokerd") { reason }
      end

      private

      def describe(callback, error)
        "#{callback} raised #{error.class}: #{error.message}\n\t#{Array(error.backtrace).first(20).join("\n\t")}"
      end
    end
  end
end
