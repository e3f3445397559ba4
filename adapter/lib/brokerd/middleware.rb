# frozen_string_literal: true

require "brokerd/origin"
require "brokerd/response_head"
require "brokerd/takeover"

module Brokerd
  # Upgrades WebSocket and EventSource requests: `use Brokerd::Middleware`.
  #
  # It sets `env["rack.upgrade?"]` to `:websocket`, `:sse` or nil before the application runs. When the
  # application leaves a callback object in `env["rack.upgrade"]` and answers with a status under 300, the
  # connection is taken from the server and the object's callbacks are called. On a server that sets
  # `rack.upgrade?` itself the middleware does nothing.
  #
  # It belongs outermost: headers that middleware above it adds are not in the upgrade's response, and
  # middleware below it must not hide `env["rack.upgrade"]` in a copy of env.
  class Middleware
    # @param app [#call]
    # @param options settings that override those of {Brokerd.configure}; see {Configuration}
    def initialize(app, **options)
      @app = app
      @own = options.slice(:allowed_origins, :trust_proxy, :env, :deflate)
      Brokerd.config.update(options.except(*@own.keys))
      Brokerd.config.with(@own) # checked now rather than with the first request
    end

    # @param env [Hash{String => Object}] the request, as Rack has it
    # @return [Array(Integer, Hash, #each)] the application's answer; after an upgrade an empty one, which the
    #   server ignores
    def call(env)
      return @app.call(env) if env.key?("rack.upgrade?")

      Runtime.take_up(PubSub.engines?)
      kind = Handshake.check(env)
      return Refusal.handshake(*kind) if kind.is_a?(Array)

      kind ||= :sse if Handshake.event_stream?(env)
      kind = nil if kind && !Takeover.possible?(env)
      env["rack.upgrade?"] = kind
      kind ? upgradeable(env, kind) : ordinary(env)
    end

    private

    def ordinary(env)
      response = @app.call(env)
      env.delete("rack.upgrade")
      response
    end

    def upgradeable(env, kind)
      config = @own.empty? ? Brokerd.config : Brokerd.config.with(@own)
      return Refusal.origin(env) if kind == :websocket && !Origin.allowed?(env, config)

      status, headers, body = response = @app.call(env)
      handler = env["rack.upgrade"]
      if !handler || status.to_i >= 300 # rubocop:disable Style/NumericPredicate
        env.delete("rack.upgrade")
        return response
      end
      upgrade(env, kind, config, headers, handler)
    ensure
      close(body) if body && handler && status.to_i < 300
    end

    # After a hijack the server ignores the response; middleware above may still look at it.
    def upgrade(env, kind, config, headers, handler)
      Shutdown.watch_server
      deflate, terms = negotiate(env, kind, config)
      head = ResponseHead.build(env, kind, headers, deflate)
      kept = KeptEnv.of(env, config.env)
      client = Takeover.call(env) { |fd, received| Client.take(fd, kind, head, received, kept, handler, terms) }
      [status(client, kind), {}, []]
    end

    def status(client, kind)
      return 503 unless client

      kind == :websocket ? 101 : 200
    end

    def negotiate(env, kind, config)
      Handshake.deflate(env["HTTP_SEC_WEBSOCKET_EXTENSIONS"]) if kind == :websocket && config.deflate
    end

    def close(body)
      body.close if body.respond_to?(:close)
    rescue StandardError => e
      Brokerd.logger.error("brokerd") { "closing the response's body raised #{e.class}: #{e.message}" }
    end

    # @api private
    # Answers to requests that are not let through.
    module Refusal
      module_function

      def handshake(status, reason)
        headers = { "content-type" => "text/plain", "connection" => "close" }
        headers["sec-websocket-version"] = "13" if status == 426
        headers["upgrade"] = "websocket" if status == 426
        answer(status, headers, reason)
      end

      def origin(env)
        Brokerd.logger.warn("brokerd") do
          "a WebSocket of #{env['HTTP_ORIGIN'].inspect[0, 200]} to #{Origin.host(env, false).inspect[0, 200]} was refused; " \
            "the setting allowed_origins says which pages may open one (behind a proxy see also trust_proxy)"
        end
        answer(403, { "content-type" => "text/plain" }, "this origin may not open a WebSocket here")
      end

      def answer(status, headers, text)
        text = "#{text}\n"
        [status, headers.merge("content-length" => text.bytesize.to_s), [text]]
      end
    end
    private_constant :Refusal

    # @api private
    # The part of a request's env that its client keeps.
    module KeptEnv
      DROPPED = %w[rack.hijack rack.hijack_io puma.socket rack.input rack.errors rack.logger rack.after_reply
                   rack.response_finished rack.early_hints unicorn.socket pitchfork.socket
                   protocol.http.request async.http.request puma.config].freeze
      SLIM = %w[REQUEST_METHOD SCRIPT_NAME PATH_INFO QUERY_STRING SERVER_NAME SERVER_PORT REMOTE_ADDR HTTP_HOST
                HTTP_ORIGIN HTTP_COOKIE HTTP_USER_AGENT HTTP_LAST_EVENT_ID HTTP_SEC_WEBSOCKET_PROTOCOL
                HTTP_AUTHORIZATION HTTP_X_FORWARDED_FOR rack.url_scheme rack.upgrade rack.upgrade? rack.session].freeze
      SERVERS_OWN = /\A(?:[A-Z][A-Z0-9_]*|(?:rack|puma|unicorn|pitchfork|async|protocol)\..*)\z/.freeze
      private_constant :DROPPED, :SLIM, :SERVERS_OWN

      module_function

      def of(env, extent)
        case extent
        when :full then env.select { |key, value| !DROPPED.include?(key) && !holds_connection?(value) }
        when :slim then env.select { |key, _| SLIM.include?(key) || !SERVERS_OWN.match?(key.to_s) }
        else nil # the client makes up "rack.upgrade" and "rack.upgrade?" when somebody asks
        end
      end

      # A server's procs (Puma's puma.mark_as_io_bound) keep its whole connection object alive.
      def holds_connection?(value)
        Proc === value || Method === value || IO === value # (a BasicObject has no is_a?)
      end
    end
    private_constant :KeptEnv
  end
end
