# frozen_string_literal: true

require "etc"

module Bench
  # Median, and the smallest and largest.
  Spread = Struct.new(:median, :least, :most) do
    def self.of(values)
      sorted = values.sort
      return if sorted.empty?

      middle = sorted.size / 2
      new(sorted.size.odd? ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2.0, sorted.first, sorted.last)
    end

    def single?
      least == most
    end
  end

  # One row: a work's figure, ours, theirs, the ratio round by round.
  Row = Struct.new(:work, :comparison, :ours, :theirs, :ratio, :note) do
    def met?
      value = comparison.contestant ? ratio : ours
      value && comparison.met?(value.median)
    end

    def verdict
      return note if note
      return "" if comparison.target.nil?

      met? ? "met" : "MISSED"
    end
  end

  # The figures of all rounds, made into rows and text.
  class Table
    HEAD = ["work", "figure", "brokerd", "beside", "theirs", "ratio (spread)", "target", ""].freeze

    attr_reader :rows

    # @param figures [Hash] work => contestant => an array, one entry a round: figures by name, or a String (why there are none)
    def initialize(figures)
      @figures = figures
      @rows = figures.flat_map { |work, contestants| work.comparisons.map { |comparison| row(work, contestants, comparison) } }
    end

    def to_text
      lines = [HEAD] + cells
      widths = lines.transpose.map { |column| column.map(&:length).max }
      lines.map { |line| line.each_with_index.map { |cell, i| [2, 4, 5].include?(i) ? cell.rjust(widths[i]) : cell.ljust(widths[i]) }.join("  ").rstrip }
           .insert(1, widths.map { |width| "-" * width }.join("  ")).join("\n")
    end

    def to_markdown
      lines = ["| #{HEAD.join(' | ')} |", "|---|---|---:|---|---:|---:|---|---|"]
      (lines + cells.map { |line| "| #{line.join(' | ')} |" }).join("\n")
    end

    # Every figure of every round.
    def to_h
      @figures.to_h do |work, contestants|
        [work.name, { "title" => work.title, "rounds" => contestants,
                      "comparisons" => @rows.select { |row| row.work == work }.map { |row| row_hash(row) } }]
      end
    end

    def self.machine
      cpu = File.read("/proc/cpuinfo")[/^model name\s*:\s*(.*)$/, 1]
      memory = File.read("/proc/meminfo")[/^MemTotal:\s*(\d+)/, 1].to_i / 1024 / 1024.0
      { "cpu" => cpu, "processors" => Etc.nprocessors, "memory_gib" => memory.round(1), "kernel" => Etc.uname[:release],
        "ruby" => RUBY_DESCRIPTION, "load_average_at_start" => File.read("/proc/loadavg").split.first.to_f }
    end

    private

    def row(work, contestants, comparison)
      ours = usable(contestants["brokerd"], comparison.figure)
      peer = comparison.contestant
      note = reason(contestants, "brokerd") || (peer && reason(contestants, peer))
      return Row.new(work, comparison, Spread.of(ours.compact), nil, nil, note) unless peer && note.nil?

      theirs = usable(contestants[peer], comparison.figure)
      ratios = ours.zip(theirs).filter_map { |own, other| own / other.to_f if own && other && other.to_f.positive? }
      Row.new(work, comparison, Spread.of(ours.compact), Spread.of(theirs.compact), Spread.of(ratios), nil)
    end

    def usable(rounds, figure)
      Array(rounds).map { |round| round[figure] if round.is_a?(Hash) }
    end

    # Said in the row when a contestant has no figures at all.
    def reason(contestants, name)
      rounds = Array(contestants[name])
      "#{name}: #{rounds.grep(String).first}" if rounds.none?(Hash)
    end

    def cells
      last = nil
      @rows.map do |row|
        title = row.work == last ? "" : row.work.title
        last = row.work
        [title, row.comparison.figure, number(row.ours&.median), row.comparison.contestant.to_s, number(row.theirs&.median), spread(row.ratio),
         row.comparison.target_text, row.verdict]
      end
    end

    def spread(ratio)
      return "" unless ratio

      ratio.single? ? number(ratio.median) : "#{number(ratio.median)} (#{number(ratio.least)}–#{number(ratio.most)})"
    end

    def number(value)
      return "" if value.nil?

      size = value.abs
      return value.round.to_s.reverse.scan(/\d{1,3}/).join(",").reverse if size >= 1000

      format(size >= 100 ? "%.0f" : size >= 10 ? "%.1f" : size >= 1 ? "%.2f" : "%.3f", value)
    end

    def row_hash(row)
      { "figure" => row.comparison.figure, "beside" => row.comparison.contestant, "brokerd" => row.ours&.to_h, "theirs" => row.theirs&.to_h,
        "ratio" => row.ratio&.to_h, "target" => row.comparison.target, "sense" => row.comparison.target && row.comparison.sense,
        "met" => row.met?, "note" => row.note }
    end
  end
end
