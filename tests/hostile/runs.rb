# frozen_string_literal: true

require_relative "target"

# Each run attacks a server of its own, raises when a promise is broken, and returns its figures.
module Hostile
  class Broken < StandardError; end

  # Objects that a thread's stack may still point to: the collector looks there, too.
  ON_STACKS = 12
  private_constant :ON_STACKS

  module_function

  def promise(what, kept)
    raise Broken, what unless kept
  end

  # Clients that never read while messages of 4 KiB are broadcast beside as many that do.
  # @param rounds [Integer] pairs of a measurement without them and one with them, interleaved
  # @param alone [Boolean] measure without them, too
  def never_read(clients: 500, seconds: 30, rate: 40, rounds: 1, alone: true)
    Target.open do |target|
      load = { clients: clients, rate: rate, size: 4096, seconds: seconds }
      target.broadcast(**load, seconds: 1)
      before = target.counts
      peaks = []
      pairs = Array.new(rounds) do |round|
        without = target.broadcast(**load) if alone
        bad = target.attack("never_read", clients, (seconds * 4) + 60)
        target.wait_for("all of them to be subscribed", 60) { target.counts[:clients] >= clients }
        beside = nil
        peaks << target.peak { beside = target.broadcast(**load) }
        target.wait_for("the eviction of all", 60) { evictions(target) >= clients * (round + 1) }
        bad.stop("KILL")
        [without, beside].map { |result| result&.dig(:latency_us, :p99) }
      end
      growth = (peaks.max - before[:rss_kib]) / 1024
      target.wait_for("their end", 30) { target.counts[:clients].zero? }
      promise "memory grew by #{growth} MiB", growth < 600
      { clients: clients, seconds: seconds, growth_mib: growth, evicted: evictions(target), p99_us_alone_and_beside: pairs,
        ratio: alone && pairs.map { |without, beside| (beside / without).round(2) }.sort[rounds / 2], left: target.counts.slice(:clients, :objects) }
    end
  end

  def evictions(target)
    target.counts.values_at(:evicted_slow, :evicted_stalled).sum
  end

  HEAP = 2 * 1024 # KiB: what Ruby's own tables may grow by
  PARTS = 5       # of the drops: growth that ends is a table that finds its size, growth that goes on is a leak
  private_constant :HEAP, :PARTS

  # Connections that are dropped at random points of the handshake and of a frame.
  def drops(count: 100_000, seed: Random.new_seed % 1_000_000)
    Target.open do |target|
      target.outcome(target.attack("drops", [count / 10, 500].max, 0, seed + PARTS), 300) # everything has its size
      before = settled(target)
      outcomes, counts = Array.new(PARTS) { |part| drop_some(target, count / PARTS, seed + part) }.transpose
      after = counts.last
      promise "client objects: #{after[:objects]} after #{before[:objects]}", after[:objects] <= before[:objects] + ON_STACKS
      promise "sockets: #{after[:sockets]} after #{before[:sockets]}", after[:sockets] <= before[:sockets]
      promise "descriptors: #{after[:descriptors]} after #{before[:descriptors]}", after[:descriptors] <= before[:descriptors]
      promise "memory: #{after[:rss_kib]} KiB after #{before[:rss_kib]}", after[:rss_kib] - before[:rss_kib] < 16 * 1024
      heap = [before, *counts].map { |each| each[:heap_kib] }
      promise "heap: #{heap.last} KiB after #{heap.first}", heap.include?(nil) || heap.last - heap.first < HEAP
      { opened: outcomes.sum { |each| each[:opened] }, upgraded: outcomes.sum { |each| each[:upgraded] }, seed: seed, before: before, after: after, heap_kib: heap }
    end
  end

  def drop_some(target, count, seed)
    [target.outcome(target.attack("drops", count, 0, seed), 60 + (count / 100)), settled(target)]
  end

  # Puma needs a moment for connections that were dropped in the handshake.
  def settled(target)
    target.wait_for("the end of all clients", 60) { target.counts[:clients].zero? }
    least = target.counts
    10.times do
      now = target.counts
      least = now if now[:descriptors] < least[:descriptors]
      IO.select(nil, nil, nil, 0.05)
    end
    least.merge(target.counts.slice(:rss_kib, :heap_kib)).slice(:clients, :objects, :descriptors, :sockets, :rss_kib, :heap_kib)
  end

  # Connections of each kind, and the counter that must count them all.
  FLOODS = {
    "ping_flood" => [4, nil],
    "tiny_frame_flood" => [4, nil],
    "fragment_flood" => [4, :protocol_errors],
    "empty_fragment_flood" => [4, nil],
    "slow_handshake" => [100, nil],
    "slow_frame" => [100, nil],
    "half_open" => [100, :ping_timeouts]
  }.freeze

  # Each kind of flood in turn, beside well-behaved clients.
  # @param alone [Boolean] measure without the flood, too
  def floods(seconds: 20, clients: 50, rate: 40, only: FLOODS.keys, alone: true)
    Target.open(env: { "BROKERD_PING" => "1", "BROKERD_PONG_TIMEOUT" => "1" }) do |target|
      load = { clients: clients, rate: rate, size: 200 }
      target.broadcast(**load, seconds: 1)
      only.to_h do |kind|
        quiet = target.broadcast(**load, seconds: seconds) if alone
        [kind, { p99_us_alone: quiet&.dig(:latency_us, :p99) }.merge(flood(target, kind, load, seconds))]
      end
    end
  end

  def flood(target, kind, load, seconds)
    count, counter = FLOODS.fetch(kind)
    before = target.counts
    attack = target.attack(kind, count, seconds + 60)
    beside = nil
    growth = target.peak { beside = target.broadcast(**load, seconds: seconds) } - before[:rss_kib]
    target.wait_for("#{counter} to count them", 20) { target.counts[counter] - before[counter] == count } if counter
    attack.signal("TERM")
    outcome = target.outcome(attack, 30)
    target.wait_for("the end of #{kind}", 20) { target.counts[:clients].zero? }
    after = target.counts
    promise "#{kind}: memory grew by #{growth} KiB", growth < 64 * 1024
    promise "#{kind}: client objects are left: #{after[:objects]}", after[:objects] <= before[:objects] + ON_STACKS
    counted = %i[protocol_errors ping_timeouts evicted_slow].to_h { |name| [name, after[name] - before[name]] }
    outcome.except(:kind).merge(growth_kib: growth, p99_us_beside: beside[:latency_us][:p99], server_cpus: beside[:server_cpus], **counted)
  end
end
