# frozen_string_literal: true

# See scripts/hostile.
require "pp"
require "tmpdir"
require "fileutils"
require_relative "runs"

what, *rest = ARGV
figures =
  case what
  when "never_read"
    clients, seconds, rate, rounds = rest.map(&:to_i)
    Hostile.never_read(clients: clients || 500, seconds: seconds || 30, rate: rate || 40, rounds: rounds || 3)
  when "drops" then Hostile.drops(count: (rest[0] || 100_000).to_i, **(rest[1] ? { seed: rest[1].to_i } : {}))
  when "floods" then Hostile.floods(seconds: (rest.shift || 20).to_i, **(rest.empty? ? {} : { only: rest }))
  else abort "hostile: say never_read, drops or floods"
  end
pp figures
if what == "never_read" && figures[:ratio] > 2
  abort "hostile: p99 beside them is #{figures[:ratio]} times that without them; it may be 2"
end
