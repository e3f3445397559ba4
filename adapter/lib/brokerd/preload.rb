# frozen_string_literal: true

module Brokerd
  # @api private
  # Tells a server's master, which loads the application only for the workers that it will fork, from every
  # other process. Subscriptions and engines registered in such a master are the workers' business.
  module Preload
    PID = Process.pid
    private_constant :PID

    module_function

    def master?
      Process.pid == PID && (puma? || unicorn? || pitchfork?)
    end

    def puma?
      return false unless defined?(::Puma) && ::Puma.respond_to?(:cli_config)

      options = ::Puma.cli_config&.options
      return false unless options

      options[:workers].to_i.positive? && options[:preload_app] ? true : false
    end

    def unicorn?
      return false unless defined?(::Unicorn::HttpServer)

      ObjectSpace.each_object(::Unicorn::HttpServer).any? { |server| server.preload_app && server.worker_processes.positive? }
    end

    def pitchfork?
      defined?(::Pitchfork::HttpServer) && ObjectSpace.each_object(::Pitchfork::HttpServer).any?
    end

    private_class_method :puma?, :unicorn?, :pitchfork?
  end
end
