# frozen_string_literal: true

module Faults
  # What a run gives: figures, and what was violated.
  class Report
    attr_reader :figures, :violations

    def initialize(options)
      @options = options
      @figures = {}
      @violations = []
    end

    def figure(name, value)
      @figures[name] = value.is_a?(Float) ? value.round(2) : value
    end

    # @param holds whether what must be is so
    def must(rule, holds, found = nil)
      @violations << (found.nil? ? rule : "#{rule}: #{found}") unless holds
    end

    # A figure that must be 0.
    def none(name, value)
      figure(name, value)
      must("no #{name}", value.zero?, value)
    end

    def print
      @options.json ? puts(JSON.pretty_generate(to_h)) : puts(table)
    end

    def to_h
      { script: @options.script, seconds: @options.seconds, seed: @options.seed, transport: @options.transport,
        network: @options.network, rate: @options.rate, clients: @options.clients * @options.processes, figures: @figures,
        violations: @violations }
    end

    private

    def table
      width = @figures.keys.map(&:size).max.to_i
      head = "#{@options.script}: #{@options.seconds} s over #{@options.transport}#{' through a lossy network' if @options.network}, " \
             "#{@options.processes} processes x #{@options.clients} WebSockets, #{@options.rate} messages/s, seed #{@options.seed}"
      lines = @figures.map { |name, value| "  #{name.ljust(width)}  #{grouped(value)}" }
      ending = @violations.empty? ? ["  nothing violated"] : @violations.map { |text| "  VIOLATED  #{text}" }
      [head, *lines, *ending]
    end

    def grouped(value)
      value.is_a?(Integer) ? value.to_s.gsub(/(?<=\d)(?=(\d{3})+\z)/, ",") : value.to_s
    end
  end
end
