# frozen_string_literal: true

# Runs what scripts/bench measures: rounds, in each round every contestant of every work once, in an order
# that turns by one from round to round, so that a slow moment of the machine meets all alike.
require "fileutils"
require "optparse"
require_relative "bench/works"
require_relative "bench/table"
require_relative "bench/plot"

module Bench
  DOCS = File.join(ROOT, "docs/benchmarks")

  # The command line and its run.
  class Command
    def initialize(arguments)
      @options = { rounds: 5, seconds: 3.0, only: [] }
      parser.parse!(arguments)
      abort "bench: unknown argument #{arguments.first}" if arguments.any?
      @options = @options.merge(rounds: 1, seconds: 2.0) if @options[:quick] && !@options[:given]
    end

    def run
      works = chosen(Works.new(seconds: @options[:seconds], quick: @options[:quick], bin: File.join(ROOT, @options.fetch(:build, "build"), "bin")).all)
      return works.each { |work| puts "#{work.name.ljust(18)} #{work.title}" } if @options[:list]

      @machine = Table.machine
      warn_of_load
      figures = measure(works)
      show(Table.new(figures))
    end

    private

    def parser
      OptionParser.new do |parser|
        parser.on("--quick") { @options[:quick] = true }
        parser.on("--only NAME") { |name| @options[:only] << name }
        parser.on("--rounds N", Integer) { |count| @options.update(rounds: count, given: true) }
        parser.on("--seconds S", Float) { |seconds| @options.update(seconds: seconds, given: true) }
        parser.on("--json FILE") { |file| @options[:json] = file }
        parser.on("--build FOLDER") { |folder| @options[:build] = folder }
        parser.on("--plot") { @options[:plot] = true }
        parser.on("--docs") { @options[:docs] = true }
        parser.on("--list") { @options[:list] = true }
        parser.on("--no-install") {}
      end
    end

    def chosen(works)
      return @options[:quick] ? works.select(&:quick) : works if @options[:only].empty?

      @options[:only].flat_map do |name|
        named = works.select { |work| work.name.start_with?(name) }
        abort "bench: no work is called #{name}; scripts/bench --list has the names" if named.empty?
        named
      end.uniq
    end

    def warn_of_load
      load = @machine["load_average_at_start"]
      warn "bench: the machine is busy (load average #{load}): these figures will not be worth much" if load > 0.7
    end

    # @return [Hash] work => contestant => an entry a round
    def measure(works)
      figures = works.to_h { |work| [work, work.contestants.transform_values { [] }] }
      @options[:rounds].times do |round|
        works.each { |work| measure_round(work, round, figures[work]) }
      end
      figures
    rescue Interrupt
      warn "\nbench: interrupted; what is there so far:"
      figures
    ensure
      $stderr.print "\r\033[K" if $stderr.tty?
    end

    def measure_round(work, round, figures)
      work.contestants.to_a.rotate(round).each do |name, run|
        progress(work, round, name)
        figures[name] << (Works.missing(name)&.then { |reason| "missing: #{reason}" } || once(run, work, name))
      end
    end

    def once(run, work, name)
      run.call
    rescue StandardError => e
      warn "\nbench: #{work.name}, #{name}: #{e.message}"
      "failed: #{e.message.lines.first.to_s.strip[0, 120]}"
    end

    def progress(work, round, name)
      line = "round #{round + 1} of #{@options[:rounds]}: #{work.title}: #{name}"
      $stderr.tty? ? $stderr.print("\r\033[K#{line}") : warn(line)
    end

    def show(table)
      puts table.to_text
      FileUtils.mkdir_p(DOCS)
      everything = { "machine" => @machine, "rounds" => @options[:rounds], "seconds" => @options[:seconds], "works" => table.to_h }
      File.write(@options[:json], "#{JSON.pretty_generate(everything)}\n") if @options[:json]
      File.write(File.join(DOCS, "ratios.svg"), Plot.new(table, machine_text).to_svg) if @options[:plot] || @options[:docs]
      return unless @options[:docs]

      File.write(File.join(DOCS, "figures.json"), "#{JSON.pretty_generate(everything)}\n")
      File.write(File.join(DOCS, "figures.md"), "# Figures\n\n#{machine_text}. #{@options[:rounds]} rounds of #{@options[:seconds]} s.\n" \
                                                "[How they were measured, and what they mean](../benchmarks.md).\n\n#{table.to_markdown}\n")
    end

    def machine_text
      "#{@machine['processors']} processors (#{@machine['cpu']}), #{@machine['memory_gib']} GiB, Linux #{@machine['kernel']}, #{@machine['ruby'].split(' (').first}"
    end
  end
end

Bench::Command.new(ARGV).run
