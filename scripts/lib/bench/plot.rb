# frozen_string_literal: true

require "cgi"

module Bench
  # The ratios that have a target, one bar each on a logarithmic scale, as SVG: the bar is the median, the
  # thin line the spread over the rounds, the tick the target.
  class Plot
    ROW = 22
    LEFT = 470
    WIDTH = 560
    TOP = 56
    LIMITS = [0.01, 100.0].freeze

    def initialize(table, machine)
      @rows = table.rows.select { |row| row.ratio && row.comparison.target }
      @machine = machine
    end

    def to_svg
      height = TOP + @rows.size * ROW + 40
      <<~SVG
        <svg xmlns="http://www.w3.org/2000/svg" width="#{LEFT + WIDTH + 90}" height="#{height}" font-family="sans-serif" font-size="12">
        <rect width="100%" height="100%" fill="#fff"/>
        <text x="10" y="20" font-size="15">brokerd beside the others: ratio ours / theirs, median of interleaved rounds</text>
        <text x="10" y="38" fill="#666">#{text(@machine)}</text>
        #{axis(height)}
        #{@rows.each_with_index.map { |row, index| bar(row, TOP + index * ROW) }.join("\n")}
        </svg>
      SVG
    end

    private

    def text(string)
      CGI.escapeHTML(string.to_s)
    end

    def x(ratio)
      low, high = LIMITS.map { |limit| Math.log10(limit) }
      place = (Math.log10(ratio.clamp(*LIMITS)) - low) / (high - low)
      (LEFT + place * WIDTH).round(1)
    end

    def axis(height)
      [0.01, 0.1, 1, 10, 100].map do |value|
        %(<line x1="#{x(value)}" x2="#{x(value)}" y1="#{TOP - 6}" y2="#{height - 34}" stroke="#{value == 1 ? '#333' : '#ddd'}"/>) +
          %(<text x="#{x(value)}" y="#{height - 18}" text-anchor="middle" fill="#666">#{value}×</text>)
      end.join("\n")
    end

    def bar(row, top)
      ratio = row.ratio
      ends = [x(1), x(ratio.median)].minmax
      middle = top + ROW / 2.0
      target = x(row.comparison.target)
      [%(<text x="#{LEFT - 8}" y="#{middle + 4}" text-anchor="end">#{text("#{row.work.title}: #{row.comparison.figure} / #{row.comparison.contestant}")}</text>),
       %(<rect x="#{ends[0]}" y="#{top + 4}" width="#{[ends[1] - ends[0], 1].max.round(1)}" height="#{ROW - 8}" fill="#{row.met? ? '#4a8f5c' : '#c0603a'}"/>),
       %(<line x1="#{x(ratio.least)}" x2="#{x(ratio.most)}" y1="#{middle}" y2="#{middle}" stroke="#222"/>),
       %(<line x1="#{target}" x2="#{target}" y1="#{top + 1}" y2="#{top + ROW - 1}" stroke="#222" stroke-width="2"/>),
       %(<text x="#{LEFT + WIDTH + 10}" y="#{middle + 4}">#{format('%.3g', ratio.median)}×</text>)].join
    end
  end
end
