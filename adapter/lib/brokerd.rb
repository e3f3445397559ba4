# frozen_string_literal: true

require "brokerd/version"
require "brokerd/brokerd_ext"
require "brokerd/configuration"
require "brokerd/callbacks"
require "brokerd/client"
require "brokerd/pubsub"
require "brokerd/shutdown"
require "brokerd/preload"
require "brokerd/embedded"
require "brokerd/programs"
require "brokerd/middleware"
require "brokerd/railtie" if defined?(Rails::Railtie)

# WebSocket, Server-Sent Events and publish/subscribe for any Rack server.
module Brokerd
  # @!method self.publish(to, message, engine = nil)
  #   Never blocks, and may be called in a trap handler.
  #   @param to [String, Symbol] the channel
  #   @param message [String] at most 8 MiB; binary-encoded or invalid UTF-8 is sent as binary
  #   @param engine [PubSub::Engine, false, nil] nil the default engine, false (or {PubSub::PROCESS}) this
  #     process's subscribers alone, or any engine
  #   @return [Boolean] true when the message was scheduled, false when it is known to fail
  #   @raise [TypeError] when the message is no String
  #   @raise [ArgumentError] when the channel or the message is too long

  # @!method self.subscribe(to, is_pattern = false, match: nil)
  #   The same name and kind again replaces the older one. A subscription that is made before a server forks
  #   its workers is served in each worker, from its first use on.
  #   @param to [String, Symbol] a channel or, with is_pattern or `match: :redis`, a glob pattern
  #   @yieldparam channel [String] the one that was published to
  #   @yieldparam message [String]
  #   @return [Subscription, nil] nil when it is known to fail
  #   @raise [ArgumentError] without a block

  # @!method self.unsubscribe(from, is_pattern = false)
  #   @return [Boolean] whether there was one

  class << self
    # The settings of this process.
    # @return [Configuration]
    def config
      @config ||= Configuration.new
    end

    # Changes settings; those of the connection to the broker must be set before its first use.
    # @yieldparam config [Configuration]
    # @return [Configuration]
    def configure
      yield config if block_given?
      config
    end

    # @return [Logger] where the gem's own log lines go
    def logger
      config.logger
    end

    # Takes up at once what was registered before this process was forked, and connects to the broker. Good
    # in a worker's boot hook; otherwise the first use does it.
    # @return [Boolean]
    def start
      Runtime.start
    end

    # Tells open clients of the shutdown, sends what is queued, closes them, and waits for the broker to
    # have answered every publish; at most `timeout` seconds for each step. Runs by itself at exit.
    # @return [Boolean] whether everything was done in time
    def shutdown(timeout: config.shutdown_timeout)
      Shutdown.run(timeout)
    end

    # Counters of this process's clients and of its link to the broker.
    # @return [Hash{Symbol => Integer, Boolean}]
    def stats
      Runtime.stats
    end

    # @api private
    # Does this process only load the application for the workers that it will fork?
    def preloading?
      Preload.master?
    end

    # @api private
    # What the extension needs to start its I/O thread.
    def runtime_settings
      config.runtime
    end
  end
end
