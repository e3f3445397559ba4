# frozen_string_literal: true

module Brokerd
  module PubSub
    # @api private
    # The engines of this process and what they have been told.
    #
    # The extension posts every change of interest to one mailbox, and, when asked with a token, a report:
    # a mark with that token, then everything that exists. All arrive here in that one order, one after the
    # other, on a callback thread. An engine that waits for its report hears no changes, since the report
    # has them; after the mark it hears all. So nothing is missed or told twice, and no lock is held while
    # an engine is called.
    module Engines
      # What an engine is waiting for: the token of a report, whether a mark has come, and of which I/O thread
      # (Runtime.epoch) it was asked.
      State = Struct.new(:token, :reported, :epoch)
      private_constant :State

      @engines = {}.compare_by_identity # replaced, never changed
      @lock = Mutex.new

      class << self
        def attach(engine)
          check(engine)
          return engine if builtin?(engine)

          @lock.synchronize do
            next if @engines.key?(engine)

            @engines = copy.tap { |engines| engines[engine] = State.new(nil, false, nil) }
            ask_once(engine)
          end
          engine
        end

        def detach(engine)
          @lock.synchronize do
            @engines = copy.tap { |engines| engines.delete(engine) }
            Runtime.watch(false) if @engines.empty?
          end
          engine
        end

        def reset(engine)
          @lock.synchronize { ask(engine) if @engines.key?(engine) }
          engine
        end

        def any?
          !@engines.empty?
        end

        # The I/O thread has just started, perhaps in a forked child: nobody has been told anything here.
        # Without a lock, since a publish in a trap handler may have started it.
        def started
          @engines.each_key { |engine| ask_once(engine) }
        end

        def report(token)
          @engines.each_value { |state| state.reported = true if state.token == token }
        end

        # @param token [Integer] 0 for everyone whose report has begun, else the one with that token
        def interest(token, name, is_pattern, present)
          @engines.each do |engine, state|
            next unless token.zero? ? state.reported : state.token == token

            tell(engine, present ? :subscribe : :unsubscribe, name, is_pattern)
          end
        end

        private

        def check(engine)
          missing = %i[subscribe unsubscribe publish].reject { |name| engine.respond_to?(name) }
          raise TypeError, "an engine answers #{missing.join(', ')}; #{engine.class} does not" unless missing.empty?
        end

        def builtin?(engine)
          CLUSTER.equal?(engine) || PROCESS.equal?(engine)
        end

        def copy
          {}.compare_by_identity.merge!(@engines)
        end

        # The I/O thread starts when it is first needed, which is told by `started`; meanwhile another thread
        # may attach an engine. Whoever comes first asks for it: two reports would tell things twice.
        def ask_once(engine)
          Runtime.watch(true)
          ask(engine) unless @engines.fetch(engine).epoch == Runtime.epoch
        end

        # Its interest is watched from before the report is asked for, so that nothing falls between. One that
        # was told something by this I/O thread goes on hearing changes until the mark: an end that comes now is
        # not in the report.
        def ask(engine)
          Runtime.watch(true)
          state = @engines.fetch(engine)
          state.reported = false unless state.epoch == Runtime.epoch
          state.epoch = Runtime.epoch
          state.token = Runtime.next_token
          Runtime.report(state.token)
        end

        def tell(engine, method, name, is_pattern)
          engine.public_send(method, name, is_pattern)
        rescue StandardError => e
          Callbacks.engine_failed(engine, method, e)
        end
      end
    end
    private_constant :Engines
  end
end
