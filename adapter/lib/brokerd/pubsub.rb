# frozen_string_literal: true

require "brokerd/engines"
require "brokerd/foreign_client"

module Brokerd
  # Publish and subscribe; `Rack::PubSub` is the same module.
  #
  # As a module it has `publish`, `subscribe` and `unsubscribe` like {Brokerd} itself, and holds the engines.
  # Its instance methods give broker pub/sub to a client class of another server:
  #
  #     client.class.prepend Brokerd::PubSub unless client.pubsub?
  module PubSub
    include ForeignClient

    class << self
      # @api private
      # Our own client has all of it already.
      def prepend_features(base)
        super unless base <= Client
      end

      # @api private
      def append_features(base)
        super unless base <= Client
      end

      # From now on the engine is told, once for each channel and pattern of this process, when there is a
      # subscription and when there is none any more; of those that exist already at once.
      # @param engine [#subscribe, #unsubscribe, #publish]
      def attach(engine)
        Engines.attach(engine)
      end

      # The engine is told nothing any more. One that is not attached does no harm.
      def detach(engine)
        Engines.detach(engine)
      end

      # The engine is told of all existing subscriptions again.
      def reset(engine)
        Engines.reset(engine)
      end

      # @!method default
      #   @return the engine that publishes when none is named; {CLUSTER} unless changed
      # @!method default=(engine)
      #   nil makes it {CLUSTER} again, false {PROCESS}.

      # @return [Boolean] whether any engine is attached
      def engines?
        Engines.any?
      end

      # @api private
      def report(token)
        Engines.report(token)
      end

      # @api private
      def interest(token, name, is_pattern, present)
        Engines.interest(token, name, is_pattern, present)
      end

      # @api private
      def started
        Engines.started
      end
    end

    # What an engine must answer; inherit and override. As it is it delivers within this process.
    class Engine
      # There is a subscription to this channel or pattern in this process.
      # @return [Boolean]
      def subscribe(_to, _is_pattern = false)
        true
      end

      # There is none any more.
      # @return [Boolean]
      def unsubscribe(_from, _is_pattern = false)
        true
      end

      # @return [Boolean] whether the publication was scheduled
      def publish(channel, message)
        Brokerd.publish(channel, message, false)
      end
    end

    # The broker: every subscriber of every process.
    CLUSTER = Engine.new
    # This process's subscribers; the same as `false`.
    PROCESS = Engine.new
    builtin_engines(CLUSTER, PROCESS)
    private_class_method :builtin_engines
  end
end

# Rack's own namespace, where the draft puts the module.
module Rack
  # The name by which the draft's applications know the module.
  PubSub = Brokerd::PubSub unless const_defined?(:PubSub, false)
end
