# frozen_string_literal: true

module Brokerd
  # @api private
  # The graceful end: on_shutdown to every client, what is queued sent, close 1001, on_close, publishes
  # answered. Begun by Puma's state event where there is one, since Puma does not know of our sockets, and
  # finished at exit.
  module Shutdown
    class << self
      # Once for each process that has an I/O thread.
      def install
        return if @installed == Process.pid

        @installed = Process.pid
        pid = Process.pid
        at_exit { run(Brokerd.config.shutdown_timeout) if Process.pid == pid }
      end

      # Told of a server's end before it waits for its requests; at the first upgrade in each process.
      def watch_server
        return if @watched == Process.pid

        @watched = Process.pid
        server = defined?(::Puma::Server) && ::Puma::Server.current
        return unless server.respond_to?(:events) && server.events.respond_to?(:register)

        server.events.register(:state) { |state| puma_state(state) }
      end

      # Whether a shutdown has begun in this process.
      def begun?
        @begun == Process.pid
      end

      # Tells every client, without waiting. Clients that open afterwards are closed at once.
      def begin
        @begun = Process.pid if Runtime.begin_shutdown
      end

      # All of it, each step bounded.
      def run(timeout)
        return true unless Runtime.running?

        self.begin
        closed = Runtime.wait_clients(timeout) && wait_callbacks(timeout)
        answered = Runtime.wait_published(timeout)
        unless answered
          warn "brokerd: #{Runtime.stats[:unanswered]} published messages were not answered by the broker " \
               "within #{timeout} s (#{Brokerd.config.url || 'embedded broker'}); they may be lost"
        end
        stopped = Runtime.stop(timeout)
        @begun = @installed = nil
        closed && answered && stopped
      end

      private

      def puma_state(state)
        case state
        when :stop, :halt then self.begin
        when :restart then run(Brokerd.config.shutdown_timeout) if single?
        end
      end

      # In a cluster a worker that restarts goes on with the same clients.
      def single?
        !::Puma.respond_to?(:cli_config) || ::Puma.cli_config&.options.to_h[:workers].to_i.zero?
      rescue NoMethodError
        true
      end

      # The sockets are closed; now the on_close callbacks have to run.
      def wait_callbacks(timeout)
        deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + timeout
        until Runtime.live_clients.zero?
          return false if Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline

          sleep 0.002
        end
        true
      end
    end
  end
end
