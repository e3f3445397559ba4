# frozen_string_literal: true

# What Brokerd.publish costs its caller, in bursts: microseconds a call, the median of 100 bursts, the
# loop's own time taken off. BROKERD_URL names the broker.
require "brokerd"
require "json"

BURSTS = 100
CALLS = 2_000
payload = "x" * 100

def time_us
  started = Process.clock_gettime(Process::CLOCK_MONOTONIC, :float_microsecond)
  yield
  Process.clock_gettime(Process::CLOCK_MONOTONIC, :float_microsecond) - started
end

def settle
  IO.select(nil, nil, nil, 0.02)
end

Brokerd.publish("bench", payload)
settle
refused = 0
empty = Array.new(BURSTS) { time_us { CALLS.times { refused += 1 unless payload } } }.sort[BURSTS / 2]
bursts = Array.new(BURSTS) do
  settle # the I/O thread has caught up
  time_us { CALLS.times { refused += 1 unless Brokerd.publish("bench", payload) } }
end.sort
puts JSON.generate("us_per_call" => ((bursts[BURSTS / 2] - empty) / CALLS).round(4), "refused" => refused)
exit refused.zero? ? 0 : 1
