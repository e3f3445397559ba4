# frozen_string_literal: true

module Brokerd
  # A setting that cannot be used; the message names it and says what it takes.
  class ConfigurationError < Error; end

  # The gem's settings. Each but `on_gap` and `logger` can be given as an environment variable
  # `BROKERD_<NAME>` too (sizes in bytes, times in seconds, true or false), which wins over the program.
  #
  # | setting | what it is | default |
  # |---|---|---|
  # | `url` | the broker: `ipc:///path`, `tcp://host:port`, `tls+tcp://host:port` | a broker of the application's own |
  # | `secret_file` | file with the secret shared with the broker | none |
  # | `ca_file` | certificates that may sign the broker's, for `tls+tcp://` | the system's |
  # | `crl_file` | revocation lists in which the broker's certificate must not be | none |
  # | `cert_file` | this process's own certificate, for a broker that asks for one (`--tls-client-ca`) | none |
  # | `key_file` | its private key | in `cert_file` |
  # | `allowed_origins` | pages that may open WebSockets: nil the request's own host, `:any`, a String, a Regexp, or a list | nil |
  # | `max_message` | bytes of one message from a browser | 262144 |
  # | `max_pending` | bytes that may wait for one browser | 1048576 |
  # | `ping` | seconds of silence before a ping, 0 never | 40 |
  # | `pong_timeout` | seconds within which the pong must come | 20 |
  # | `stall_timeout` | seconds without progress after which a browser that has something to read, or is in a message of its own, is closed; 0 never | 30 |
  # | `callback_threads` | Ruby threads that run callbacks | 4 |
  # | `env` | what a client keeps of its request: `:full`, `:slim`, false | `:full` |
  # | `deflate` | permessage-deflate | false |
  # | `io_uring` | write to many browsers in one system call, where the kernel lets us | true |
  # | `shutdown_timeout` | seconds that a graceful end may take | 5 |
  # | `trust_proxy` | believe X-Forwarded-Host | false |
  # | `on_gap` | called with count and reason when messages were missed | nil |
  # | `logger` | a Logger | standard error |
  class Configuration
    SCHEMES = %w[ipc:///. tcp://. tls+tcp://.].freeze

    # name => [kind, default]
    SETTINGS = {
      url: [:url, nil],
      secret_file: [:file, nil],
      ca_file: [:file, nil],
      crl_file: [:file, nil],
      cert_file: [:file, nil],
      key_file: [:file, nil],
      allowed_origins: [:origins, nil],
      max_message: [1..(1 << 30), 256 * 1024],
      max_pending: [1024..(1 << 30), 1024 * 1024],
      ping: [0..86_400, 40],
      pong_timeout: [1..86_400, 20],
      stall_timeout: [0..86_400, 30],
      callback_threads: [1..64, 4],
      env: [:env, :full],
      deflate: [:boolean, false],
      io_uring: [:boolean, true],
      shutdown_timeout: [0..3600, 5],
      trust_proxy: [:boolean, false],
      on_gap: [:callable, nil],
      logger: [:logger, nil]
    }.freeze

    WITHOUT_VARIABLE = %i[on_gap logger].freeze
    private_constant :SCHEMES, :SETTINGS, :WITHOUT_VARIABLE

    # @return [Array<Symbol>] the names of all settings
    def self.names
      SETTINGS.keys
    end

    def initialize
      @values = {}
    end

    SETTINGS.each do |name, (kind, default)|
      define_method(name) do
        from_environment = variable(name)
        from_environment.nil? ? @values.fetch(name, default) : check(name, kind, parse(kind, from_environment))
      end
      define_method(:"#{name}=") { |value| @values[name] = value.nil? ? default : check(name, kind, value) }
    end

    # @return [Logger]
    def logger
      @values[:logger] || (@logger ||= own_logger)
    end

    # A copy with some settings changed, for one middleware.
    # @param options [Hash{Symbol => Object}]
    # @return [Configuration]
    def with(options)
      dup.tap { |copy| copy.update(options) }
    end

    # @param options [Hash{Symbol => Object}]
    def update(options)
      options.each do |name, value|
        unless SETTINGS.key?(name)
          raise ConfigurationError, "brokerd has no setting #{name.inspect} (it has #{SETTINGS.keys.join(', ')})"
        end

        public_send(:"#{name}=", value)
      end
    end

    # @api private
    # The extension's share, checked as far as it can be without connecting.
    def runtime
      files = %i[secret_file ca_file crl_file cert_file key_file].to_h { |name| [name, readable(name)] }
      if files[:key_file] && !files[:cert_file]
        raise ConfigurationError, "#{label(:key_file)} is set, but the certificate it belongs to is not: set cert_file too"
      end

      files.clear unless url # the application's own broker has no secret: its folder is this user's alone
      broker.merge(files, name: process_name, max_message: max_message, max_pending: max_pending, ping: ping,
                          pong_timeout: pong_timeout, stall_timeout: stall_timeout, callback_threads: callback_threads, deflate: deflate,
                          io_uring: io_uring)
    end

    private

    # Loaded late: with `ruby -rbrokerd` under Bundler this file is read before Bundler has chosen its logger.
    def own_logger
      require "logger"
      Logger.new($stderr, level: Logger::INFO, progname: "brokerd")
    end

    def initialize_copy(other)
      super
      @values = @values.dup
    end

    def broker
      url ? { url: url, embedded: false } : Embedded.settings
    end

    # Shown by `brokerctl sessions`.
    def process_name
      "#{File.basename($PROGRAM_NAME.split(/[ :]/, 2).first.to_s)[0, 64]}[#{Process.pid}]"
    end

    def variable(name)
      return if WITHOUT_VARIABLE.include?(name)

      value = ENV["BROKERD_#{name.upcase}"]
      value unless value.nil? || value.empty?
    end

    def readable(name)
      path = public_send(name)
      return path if path.nil? || File.readable?(path)

      raise ConfigurationError, "#{label(name)} is #{path.inspect}, which cannot be read"
    end

    def parse(kind, text)
      case kind
      when Range then Integer(text, 10, exception: false) || text
      when :boolean then { "true" => true, "1" => true, "false" => false, "0" => false }.fetch(text.downcase, text)
      when :env then text.downcase == "false" ? false : text.downcase.to_sym
      when :origins then text.downcase == "any" ? :any : text.split(/[,\s]+/)
      else text
      end
    end

    def check(name, kind, value)
      return value if valid?(kind, value)

      raise ConfigurationError, "#{label(name)} is #{value.inspect}, but it must be #{expectation(kind)}"
    end

    def valid?(kind, value)
      case kind
      when Range then value.is_a?(Integer) && kind.cover?(value)
      when :url then value.is_a?(String) && SCHEMES.any? { |s| value.match?(/\A#{Regexp.escape(s.delete_suffix('.'))}./) }
      when :file then value.respond_to?(:to_str) || value.respond_to?(:to_path)
      when :boolean then [true, false].include?(value)
      when :env then [:full, :slim, false].include?(value)
      when :origins then value == :any || Array(value).all? { |v| v.is_a?(String) || v.is_a?(Regexp) }
      when :callable then value.respond_to?(:call)
      when :logger then value.respond_to?(:info) && value.respond_to?(:error)
      end
    end

    def expectation(kind)
      case kind
      when Range then "a whole number from #{kind.begin} to #{kind.end}"
      when :url then "ipc:///path, tcp://host:port or tls+tcp://host:port"
      when :file then "the path of a file"
      when :boolean then "true or false"
      when :env then ":full, :slim or false"
      when :origins then ":any, an origin such as \"https://example.com\", a Regexp, or a list of them"
      when :callable then "something that answers call(count, reason)"
      when :logger then "a Logger"
      end
    end

    def label(name)
      variable(name) ? "BROKERD_#{name.upcase}" : "the setting #{name}"
    end
  end
end
