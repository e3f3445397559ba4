# frozen_string_literal: true

require "optparse"

module Faults
  # What can be said on a script's command line.
  Options = Struct.new(:script, :seconds, :seed, :transport, :rate, :clients, :processes, :network, :json, :quiet, :journal_size,
                       keyword_init: true) do
    def self.parse(script, arguments, **defaults)
      options = new(script: script, seconds: 30, seed: Random.new_seed % 1_000_000_000, transport: "ipc", rate: 5000, clients: 50,
                    processes: 3, network: false, json: false, quiet: !$stderr.tty?, journal_size: "64M", **defaults)
      parser(options).parse(arguments)
      options
    rescue OptionParser::ParseError => e
      abort "#{script}: #{e.message}"
    end

    def self.parser(options)
      OptionParser.new("usage: tests/faults/#{options.script} [options]") do |o|
        o.on("--seconds N", Integer, "how long (#{options.seconds})") { |n| options.seconds = n }
        o.on("--seed N", Integer, "what the faults are drawn from") { |n| options.seed = n }
        o.on("--transport NAME", %w[ipc tcp tls], "between processes and broker (ipc)") { |name| options.transport = name }
        o.on("--rate N", Integer, "messages a second of all publishers (5000)") { |n| options.rate = n }
        o.on("--clients N", Integer, "WebSockets of each process (50)") { |n| options.clients = n }
        o.on("--network", "broker behind a veth pair that loses packets and is taken down (root, Linux)") { options.network = true }
        o.on("--journal-size N", "the ring (#{options.journal_size})") { |n| options.journal_size = n }
        o.on("--json", "the result as JSON") { options.json = true }
        o.on("--quiet", "no progress line") { options.quiet = true }
      end
    end
  end
end
