# frozen_string_literal: true

# What a block sees of the numbered messages, and whether every one that it does not see was told by a gap before
# the next message. A gap has no publisher: what it told is compared with all that is missing.
class Watch
  def initialize
    @mutex = Mutex.new
    @highest = Hash.new(0)
    @missing = @told = @gaps = @messages = @twice = 0
    @untold = 0 # the most that was missing and not told at any message
    @reasons = Hash.new(0)
  end

  def message(text)
    publisher = text[0]
    return if publisher == "f" # a mark

    sequence = text[1..].to_i(16)
    @mutex.synchronize do
      @messages += 1
      expected = @highest[publisher] + 1
      @twice += 1 if sequence < expected
      @missing += sequence - expected if sequence > expected
      @highest[publisher] = sequence if sequence >= expected
      @untold = @missing - @told if @missing - @told > @untold
    end
  end

  def gap(count, reason)
    @mutex.synchronize do
      @gaps += 1
      @told += count
      @reasons[reason] += 1
    end
  end

  def to_h
    @mutex.synchronize do
      { highest: @highest.dup, messages: @messages, missing: @missing, told: @told, gaps: @gaps, twice: @twice,
        untold: @untold, reasons: @reasons.dup }
    end
  end
end
