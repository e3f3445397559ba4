# frozen_string_literal: true

# Real processes, a real broker, and faults that are drawn from a seed.
require "fileutils"
require "json"
require "net/http"
require "open3"
require "securerandom"
require "socket"
require "tmpdir"
$LOAD_PATH.unshift(File.expand_path("../../../adapter/spec", __dir__))
%w[deadline ports child broker server].each { |name| require "support/#{name}" }
%w[options broker transport network pipe_program publishers observer plant storm checks memory report].each { |name| require_relative name }

module Faults
  module_function

  # Runs a script: a folder, the report, the exit status; what it started is ended whatever happens.
  def run(options)
    report = Report.new(options)
    Dir.mktmpdir("brokerd-faults") do |folder|
      plant = Plant.new(options, folder)
      begin
        yield plant, report
      rescue RuntimeError => e # what did not happen within its limit
        progress(options, "")
        report.must("the run comes to its end", false, e.message.lines.first(3).join(" ").strip)
      ensure
        plant.stop
        keep_logs(folder) if report.violations.any? || $!
      end
    end
    report.print
    exit(report.violations.empty? ? 0 : 1)
  end

  # Publishes under faults until the time is over, then waits until everyone has everything.
  # @param first [String, nil] who is stopped first, for longer than a small ring lasts
  # @return [Array(Storm, Hash, Float)] what happened, what ws_check found, the seconds that the end took
  def storm(options, plant, first: nil)
    storm = Storm.new(plant, options, first)
    plant.start_publishers
    storm.rage do |elapsed|
      progress(options, format("%d of %d s; ready, least, most, faults, deliveries: %s", elapsed, options.seconds,
                               plant.checker.find(/^progress/)&.delete_prefix("progress ")))
    end
    ended = Support::Deadline.now
    progress(options, "the end")
    plant.finish_publishers(120)
    result = plant.drain(120)
    progress(options, "")
    [storm, result, Support::Deadline.now - ended]
  end

  def figures(report, plant, storm, result, seconds)
    report.figure("messages published", plant.lasts.sum)
    report.figure("deliveries checked", result["deliveries"])
    report.figure("cuts", storm.counts[:cuts])
    report.figure("links made by the processes", plant.reports.sum { |one| one["stats"]["link_connects"] })
    report.figure("broker killed", storm.counts[:kills])
    report.figure("broker restarted in order", storm.counts[:restarts])
    report.figure("processes and broker stopped", storm.counts[:stops])
    report.figure("seconds stopped, in sum", storm.counts[:stopped_seconds])
    report.figure("partitions of a route", storm.counts[:holds]) if storm.counts[:holds].positive?
    plant.network_figures(report, storm.counts[:network_cuts])
    report.figure("seconds until all had everything", seconds)
  end

  # Of a run with a violation the logs stay, and the journal.
  def keep_logs(folder)
    kept = "#{folder}-logs"
    FileUtils.mkdir_p(kept)
    Dir[File.join(folder, "*.{log,err,journal}")].each { |path| FileUtils.cp(path, kept) unless File.empty?(path) }
    warn "logs: #{kept}"
  end

  def progress(options, text)
    $stderr.print("\r#{text}\e[K") unless options.quiet
  end
end
