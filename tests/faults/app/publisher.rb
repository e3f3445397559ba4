# frozen_string_literal: true

require "brokerd"

# Publishes numbered messages at a fixed rate, each until it is accepted. What fell behind while the process
# was stopped is published at once afterwards.
#
# As a program: publisher.rb NUMBER RATE [FIRST COUNT]. It goes on until its input ends, or until COUNT messages
# were published, and prints the last sequence; it ends when all are answered.
class Publisher
  CHANNEL = "chaos"
  TICK = 0.005

  attr_reader :sequence, :refused

  # Until the broker has everything that this process published.
  def self.wait_for_answers
    sleep 0.005 until Brokerd.stats[:unanswered_bytes].zero?
  end

  def initialize(number, rate, first: 1, count: nil)
    @number = number
    @rate = rate
    @sequence = first - 1
    @last = count && @sequence + count
    @refused = 0
    @finish_at = nil
  end

  # @return [Integer] the last sequence
  def run
    @started = now
    @before = @sequence
    until over?
      publish while @sequence < due
      sleep TICK
    end
    @sequence
  end

  # Ends when what is due by now is published.
  def finish
    @finish_at = now
  end

  private

  def due
    due = @before + (((@finish_at || now) - @started) * @rate).to_i
    @last ? [due, @last].min : due
  end

  def over?
    @last ? @sequence == @last : @finish_at && @sequence >= due
  end

  def publish
    if Brokerd.publish(CHANNEL, format("%x%08x", @number, @sequence + 1))
      @sequence += 1
    else
      @refused += 1
      sleep 0.02
    end
  end

  def now
    Process.clock_gettime(Process::CLOCK_MONOTONIC)
  end
end

if $PROGRAM_NAME == __FILE__
  number, rate, first, count = ARGV.map(&:to_i)
  publisher = Publisher.new(number, rate, first: first || 1, count: count)
  unless count
    Thread.new do
      $stdin.read
      publisher.finish
    end
  end
  last = publisher.run
  Publisher.wait_for_answers
  puts "published #{last} refused #{publisher.refused} unsure #{Brokerd.stats[:publishes_unsure]}"
end
