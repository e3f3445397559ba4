# frozen_string_literal: true

module Brokerd
  # @api private
  # Which pages may open a WebSocket. Browsers send cookies with a WebSocket request from any page, and
  # the same-origin rule does not hold for it; only this check does.
  module Origin
    DEFAULT_PORTS = { "http" => "80", "https" => "443", "ws" => "80", "wss" => "443" }.freeze
    private_constant :DEFAULT_PORTS

    module_function

    # A request without Origin is not from a page.
    def allowed?(env, config)
      origin = env["HTTP_ORIGIN"]
      return true if origin.nil?

      allowed = config.allowed_origins
      return own?(origin, host(env, config.trust_proxy)) if allowed.nil?

      allowed == :any || Array(allowed).any? { |one| match?(one, origin) }
    end

    # The host that the browser asked for.
    def host(env, trust_proxy)
      forwarded = env["HTTP_X_FORWARDED_HOST"] if trust_proxy
      forwarded ? forwarded.split(",").last.strip : env["HTTP_HOST"]
    end

    # The scheme is left aside: behind a proxy that ends TLS we see http for https.
    def own?(origin, host)
      scheme, rest = origin.downcase.split("://", 2)
      return false unless rest && host && DEFAULT_PORTS.key?(scheme)

      without_port(rest, scheme) == without_port(host.downcase, scheme)
    end

    def without_port(authority, scheme)
      authority.delete_suffix(":#{DEFAULT_PORTS.fetch(scheme)}")
    end

    # A String may have `*` for any run of characters but `/` and `:`.
    def match?(allowed, origin)
      return allowed.match?(origin) if allowed.is_a?(Regexp)
      return true if allowed == "*"

      pattern = Regexp.escape(allowed.downcase.delete_suffix("/")).gsub("\\*", "[^/:]*")
      /\A#{pattern}\z/.match?(origin.downcase)
    end

    private_class_method :own?, :without_port, :match?
  end
end
