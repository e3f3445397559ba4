# frozen_string_literal: true

require "brokerd"

# Whose application would get whose server?
raise LoadError, "brokerd/iodine stands in for iodine, which is loaded already: require one of them" if defined?(Iodine)

# What applications written for iodine's upgrade and pub/sub API call, on any Rack server. docs/from-iodine.md
# says what is the same and what differs.
#
# With `require "brokerd/iodine"` in a config.ru the middleware needs no line of its own: it is put around the
# application when the config.ru has been read.
module Iodine
  # A browser's connection.
  Connection = Brokerd::Client

  # What is left out, and what does it here.
  INSTEAD = {
    %i[listen listen2http start stop threads threads= workers workers= running?] =>
      "the Rack server (puma -t, -w) does this",
    %i[run defer run_after run_every] =>
      "start a Thread, in the server's worker boot hook when it must run in each worker",
    %i[on_state before_fork after_fork after_fork_in_master after_fork_in_worker on_idle on_shutdown] =>
      "the Rack server's own hooks (Puma: before_fork, on_worker_boot, on_worker_shutdown) do this",
    %i[master? worker?] => "the Rack server's own hooks run in one or the other",
    %i[connect attach_fd] => "brokerd serves browsers and opens no connections to other servers",
    %i[verbosity verbosity=] => "set Brokerd.configure { |c| c.logger = ... }",
    %i[patch_json] => "use the json gem",
    %i[Rack] => "use Brokerd::Middleware; static files are the Rack server's or Rack::Static's",
    %i[Mustache] => "use the mustache gem",
    %i[JSON] => "use the json gem",
    %i[TLS] => "the Rack server, or a proxy before it, does this",
    %i[Redis] => "the broker carries messages between processes and machines; for a Redis that others publish to, write an engine"
  }.flat_map { |names, hint| names.map { |name| [name, hint] } }.to_h.freeze
  private_constant :INSTEAD

  class << self
    # @see Brokerd.publish
    def publish(to, message, engine = nil)
      Brokerd.publish(to, message, engine)
    end

    # As iodine has it: `subscribe(to)`, `subscribe(to: ...)`, with `match: :redis` and `handler:` or a block.
    # @return [Brokerd::Subscription, nil]
    def subscribe(*to, **options, &block)
      Brokerd.subscribe(*to, **options, &block)
    end

    # @return [Boolean] whether there was one
    def unsubscribe(*from, **options)
      Brokerd.unsubscribe(*from, **options)
    end

    # @api private
    def hint(what, name)
      "brokerd/iodine has no #{what}: #{INSTEAD.fetch(name, 'it has the upgrade and pub/sub API alone')} (docs/from-iodine.md)"
    end

    private

    def method_missing(name, *_arguments, **_options)
      raise NoMethodError.new(hint("Iodine.#{name}", name), name, receiver: self)
    end

    def respond_to_missing?(_name, _include_all = false)
      false
    end

    def const_missing(name)
      raise NameError.new(hint("Iodine::#{name}", name), name, receiver: self)
    end
  end

  # The engines.
  module PubSub
    # To inherit from.
    Engine = Brokerd::PubSub::Engine
    # The broker: every process.
    CLUSTER = Brokerd::PubSub::CLUSTER
    # This process alone.
    PROCESS = Brokerd::PubSub::PROCESS

    # @api private
    # iodine's documentation tells an engine nil or :redis where we say false or true.
    class Told
      def initialize(engine)
        @engine = engine
      end

      def subscribe(to, is_pattern)
        @engine.subscribe(to, is_pattern ? :redis : nil)
      end

      def unsubscribe(from, is_pattern)
        @engine.unsubscribe(from, is_pattern ? :redis : nil)
      end

      def publish(channel, message)
        @engine.publish(channel, message)
      end
    end
    private_constant :Told

    @told = {}.compare_by_identity
    @lock = Mutex.new

    class << self
      # @see Brokerd::PubSub.attach
      def attach(engine)
        missing = %i[subscribe unsubscribe publish].reject { |name| engine.respond_to?(name) }
        raise TypeError, "an engine answers #{missing.join(', ')}; #{engine.class} does not" unless missing.empty?
        return engine if CLUSTER.equal?(engine) || PROCESS.equal?(engine)

        @lock.synchronize { Brokerd::PubSub.attach(@told[engine] ||= Told.new(engine)) }
        engine
      end

      # @see Brokerd::PubSub.detach
      def detach(engine)
        @lock.synchronize { Brokerd::PubSub.detach(@told.delete(engine) || engine) }
        engine
      end

      # @see Brokerd::PubSub.reset
      def reset(engine)
        Brokerd::PubSub.reset(@lock.synchronize { @told[engine] } || engine)
        engine
      end

      # @return the engine that publishes when none is named
      def default
        Brokerd::PubSub.default
      end

      # @see Brokerd::PubSub.default=
      def default=(engine)
        Brokerd::PubSub.default = engine
      end

      private

      def method_missing(name, *_arguments, **_options)
        raise NoMethodError.new(Iodine.hint("Iodine::PubSub.#{name}", name), name, receiver: self)
      end

      def respond_to_missing?(_name, _include_all = false)
        false
      end

      def const_missing(name)
        raise NameError.new(Iodine.hint("Iodine::PubSub::#{name}", name), name, receiver: self)
      end
    end
  end

  # @api private
  # iodine upgrades without a middleware, so its applications have none in their config.ru.
  module Builder
    def to_app
      depth = Thread.current[:brokerd_builders].to_i
      Thread.current[:brokerd_builders] = depth + 1
      app = super
      depth.zero? ? Brokerd::Middleware.new(app) : app # a `map` builds its own inside
    ensure
      Thread.current[:brokerd_builders] = depth
    end
  end
  private_constant :Builder

  begin
    require "rack/builder"
    ::Rack::Builder.prepend(Builder)
  rescue LoadError
    nil # a script without Rack publishes only
  end
end
