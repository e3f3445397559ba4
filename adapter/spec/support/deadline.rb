# frozen_string_literal: true

module Support
  # Waiting for an event, never longer than a limit.
  module Deadline
    LIMIT = 10 # seconds

    module_function

    def now
      Process.clock_gettime(Process::CLOCK_MONOTONIC)
    end

    # Looks again and again until the block gives something truthy, and returns that.
    def wait_for(what, limit = LIMIT)
      deadline = now + limit
      loop do
        result = yield
        return result if result
        raise "#{what}: not within #{limit} s" if now > deadline

        IO.select(nil, nil, nil, 0.005)
      end
    end

    # One readable event, or an error that says what was waited for.
    def readable(io, what, limit = LIMIT)
      return if io.respond_to?(:pending) && io.pending.positive?

      IO.select([io], nil, nil, limit) || raise("#{what}: nothing within #{limit} s")
    end
  end
end
