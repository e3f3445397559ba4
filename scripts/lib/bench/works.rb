# frozen_string_literal: true

require "json"
require "net/http"
require "open3"
require "tmpdir"
require_relative "servers"

module Bench
  # One figure of ours beside a contestant's (or, without one, beside a limit alone). `target` is a ratio
  # ours / theirs that must be reached, or without a contestant the figure itself; nil when it is only told.
  Comparison = Struct.new(:figure, :contestant, :sense, :target) do
    def met?(ratio)
      return if target.nil?

      sense == :at_least ? ratio >= target : ratio <= target
    end

    def target_text
      return "" unless target

      "#{sense == :at_least ? '≥' : '≤'} #{target}#{'×' if contestant}"
    end
  end

  # Something that is measured: contestants (name => a callable that runs once and returns figures by
  # name), and the comparisons that the table shows.
  Work = Struct.new(:name, :title, :contestants, :comparisons, :quick)

  # A run whose figures must not be used: a delivery was lost, a program failed.
  class Spoiled < StandardError; end

  # What is measured, and how.
  class Works
    MESSAGES = "messages/s"
    DELIVERIES = "deliveries/s"
    CPU_MESSAGE = "CPU s / million messages"
    CPU_MILLION = "CPU s / million deliveries"
    CPU_DELIVERY = "CPU µs / delivery"
    PEAK = "peak MiB"
    P50 = "p50 µs"
    P99 = "p99 µs"
    CLIENT_BYTES = "bytes / idle client"
    GC_GROWTH = "minor GC pause, × that without clients"
    GC_LEFT = "minor GC pause, × that when they have left"
    GC_WHOLE_GROWTH = "minor GC with all sweeping, × without"
    CALL = "µs / publish call"
    CPU_PUBLISH = "CPU µs / publish"
    LOOK_UP = "ns / look-up"
    SERVERS = { "brokerd" => Brokerd, "iodine" => Iodine, "nchan" => Nchan, "Action Cable" => Cable }.freeze
    DEBIAN = { "redis" => "redis-server", "nats" => "nats-server" }.freeze

    def initialize(seconds:, quick:, bin: File.join(ROOT, "build/bin"))
      @seconds = seconds
      @quick = quick
      @bin = bin
      ENV["BROKERD_BIN"] = File.join(bin, "brokerd")
    end

    def all
      broker + patterns + fan_out("ws") + fan_out("sse") + ruby + growth
    end

    # @return [String, nil] why a contestant cannot be measured here
    def self.missing(contestant)
      if (program = DEBIAN[contestant])
        found = ENV.fetch("PATH").split(":").push("/usr/sbin").any? { |folder| File.executable?(File.join(folder, program)) }
        return found ? nil : "#{program} is not installed"
      end
      SERVERS[contestant]&.missing
    end

    private

    # ---- the broker alone ----

    def broker
      [
        broker_work("broker-64x1", "broker, 64 B, 1 → 1, batched", [], true,
                    [[MESSAGES, "redis", :at_least, 6], [MESSAGES, "nats", :at_least, 4], [CPU_MESSAGE, "redis", :at_most, 0.12],
                     [CPU_MESSAGE, "nats"], [PEAK, "redis"], [PEAK, "nats"]]),
        broker_work("broker-64x4", "broker, 64 B, 1 → 4, batched", %w[--subscribers 4], false,
                    [[MESSAGES, "redis", :at_least, 5], [MESSAGES, "nats", :at_least, 5], [CPU_MESSAGE, "redis", :at_most, 0.15],
                     [CPU_MESSAGE, "nats"], [PEAK, "redis"], [PEAK, "nats"]]),
        broker_work("broker-1Kx4", "broker, 1 KiB, 1 → 4, batched", %w[--subscribers 4 --size 1024], false,
                    [[MESSAGES, "redis"], [MESSAGES, "nats"], [CPU_MESSAGE, "redis", :at_most, 0.5], [CPU_MESSAGE, "nats", :at_most, 0.3]]),
        broker_work("broker-window", "broker, one request and its answer at a time", %w[--mode window], true,
                    [[MESSAGES, "redis", :at_least, 1.0], [MESSAGES, "nats"], [P50, "redis"], [P99, "redis"]]),
        broker_work("broker-1000", "broker, one way, 1,000/s", %w[--mode rate --rate 1000], true,
                    [[P50, "redis", :at_most, 1.0], [P50, "nats"], [P99, "redis"]]),
        broker_work("broker-20000", "broker, one way, 20,000/s", %w[--mode rate --rate 20000], false,
                    [[P50, "redis", :at_most, 1.0], [P50, "nats"], [P99, "redis"]])
      ]
    end

    def broker_work(name, title, arguments, quick, rows)
      contestants = { "brokerd" => -> { broker_figures("bench_broker", arguments) },
                      "redis" => -> { broker_figures("peer_broker", ["--peer", "redis", *arguments]) },
                      "nats" => -> { broker_figures("peer_broker", ["--peer", "nats", *arguments]) } }
      work(name, title, contestants, rows, quick)
    end

    def broker_figures(program, arguments)
      result = tool(program, *arguments, "--seconds", @seconds, "--json")
      raise Spoiled, "#{result['gaps']} gaps" unless result["gaps"].zero?

      { MESSAGES => result["messages_per_second"], DELIVERIES => result["deliveries_per_second"],
        CPU_MESSAGE => result["broker_cpu_seconds_per_million"],
        CPU_MILLION => result["broker_cpu_seconds_per_million"] * result["messages_per_second"] / [result["deliveries_per_second"], 1].max.to_f,
        PEAK => result["broker_peak_rss_kib"] / 1024.0,
        P50 => result["latency_us"]["p50"], P99 => result["latency_us"]["p99"] }
    end

    # ---- many patterns ----

    # All of the broker beside all of Redis, for a publish in batches and one by one; and the table of subscriptions
    # alone beside a plain scan of the same patterns with the same matcher.
    def patterns
      contestants = {
        "brokerd" => -> { { CPU_PUBLISH => publish_cpu(100_000), LOOK_UP => look_up[0] } },
        "10 patterns" => -> { { CPU_PUBLISH => publish_cpu(10) } },
        "redis" => -> { { CPU_PUBLISH => program({}, RbConfig.ruby, "#{PEERS}/redis_patterns.rb", "100000", "200")["us_per_publish"] } },
        "plain scan" => -> { { LOOK_UP => look_up[1] } }
      }
      [work("patterns", "a publish, 100,000 patterns that do not match; a look-up among 100,000, one matches", contestants,
            [[CPU_PUBLISH, "10 patterns", :at_most, 1.5], [CPU_PUBLISH, "redis"], [LOOK_UP, "plain scan"]], true)]
    end

    def publish_cpu(count)
      broker_figures("bench_broker", ["--other-patterns", count])[CPU_MESSAGE]
    end

    # @return [Array(Float, Float)] by the index, by a scan
    def look_up
      text, status = Open3.capture2(File.join(@bin, "bench_subscriptions"), "100000", "user:<n>:*")
      line = text.lines.find { |candidate| candidate.split[1] == "100000" }
      raise Spoiled, "bench_subscriptions failed" unless status.success? && line

      line.split[2, 2].map(&:to_f)
    end

    # ---- broadcasts ----

    FAN_OUT = [
      ["1x100", "one in flight, 100 clients", %w[--clients 100], 1.0, nil, 0.9, 0.8],
      ["1x1000", "one in flight, 1,000 clients", %w[--clients 1000], 1.0, nil, 0.9, 0.8],
      ["1x5000", "one in flight, 5,000 clients", %w[--clients 5000], 1.0, nil, 0.9, 0.8],
      ["16x1000", "16 in flight, 1,000 clients", %w[--clients 1000 --window 16], 8, 8, 0.12, 0.12]
    ].freeze

    def fan_out(transport)
      kind = transport == "ws" ? "WebSocket" : "SSE"
      peers = transport == "ws" ? SERVERS.keys : SERVERS.keys - ["Action Cable"]
      broadcasts = FAN_OUT.map do |name, title, arguments, iodine, nchan, iodine_cpu, nchan_cpu|
        rows = [[DELIVERIES, "iodine", :at_least, iodine], [DELIVERIES, "nchan", :at_least, name == "16x1000" ? nchan : nil],
                [CPU_DELIVERY, "iodine", :at_most, iodine_cpu], [CPU_DELIVERY, "nchan", :at_most, nchan_cpu],
                [PEAK, "iodine"], [PEAK, "nchan"]]
        here = name == "1x5000" ? peers - ["Action Cable"] : peers
        rows += [[DELIVERIES, "Action Cable"], [CPU_DELIVERY, "Action Cable"]] if here.include?("Action Cable")
        load_work("#{transport}-#{name}", "#{kind} broadcast, #{title}", transport, arguments, here, rows,
                  transport == "ws" && name.end_with?("x1000"))
      end
      broadcasts << load_work("#{transport}-rate", "#{kind} broadcast, 40 messages/s, 1,000 clients", transport,
                              %w[--clients 1000 --rate 40], peers - ["Action Cable"],
                              [[P99, "iodine", :at_most, 0.7], [P99, "nchan"], [P50, "iodine"], [CPU_DELIVERY, "iodine"]], false)
    end

    def load_work(name, title, transport, arguments, peers, rows, quick)
      peers -= ["Action Cable"] if @quick
      rows = rows.reject { |_, peer| peer == "Action Cable" } if @quick
      contestants = peers.to_h do |peer|
        [peer, -> { with(SERVERS[peer]) { |server| load_figures("broadcast", *server.arguments(transport), *arguments) } }]
      end
      work(name, title, contestants, rows, quick)
    end

    def load_figures(mode, *arguments)
      result = tool("ws_load", mode, *arguments, "--seconds", @seconds, "--json", "--quiet")
      unless result["clean"] || only_reordered?(result, arguments)
        faults = %w[lost duplicated reordered foreign closed].map { |name| "#{result[name]} #{name}" }
        raise Spoiled, "#{faults.join(', ')} #{result['problem']}"
      end
      { DELIVERIES => result["deliveries_per_second"], CPU_DELIVERY => result["server_cpu_us_per_delivery"],
        PEAK => result["server_peak_rss_kib"] / 1024.0, P50 => result["latency_us"]["p50"], P99 => result["latency_us"]["p99"],
        "out of order" => result["reordered"] }
    end

    # Action Cable's workers run one client's messages at the same time: it promises no order. That is told
    # with the figures (in the JSON), and no reason to have none.
    def only_reordered?(result, arguments)
      arguments.include?("actioncable-v1-json") && result["problem"].empty? && %w[lost duplicated foreign closed].all? { |name| result[name].zero? }
    end

    # ---- what touches Ruby ----

    def ruby
      echo = %w[brokerd iodine].to_h do |peer|
        [peer, -> { with(SERVERS[peer]) { |server| load_figures("echo", "--url", server.url("/echo"), *server.common, "--clients", 100) } }]
      end
      [
        work("echo-100", "echo through on_message, 100 clients", echo,
             [[DELIVERIES, "iodine", :at_least, 1.0], [CPU_DELIVERY, "iodine"], [P50, "iodine"], [P99, "iodine"]], false),
        idle_work("idle-env", "10,000 idle WebSockets, env kept", {}, 0.45),
        idle_work("idle-slim", "10,000 idle WebSockets, env: :slim", { "BROKERD_ENV" => "slim" }, nil),
        idle_work("idle-no-env", "10,000 idle WebSockets, env: false", { "BROKERD_ENV" => "false" }, 0.2),
        work("publish-call", "Brokerd.publish, the caller's time in bursts", { "brokerd" => -> { publish_cost } },
             [[CALL, nil, :at_most, 0.5]], false)
      ]
    end

    def idle_work(name, title, settings, target)
      contestants = { "brokerd" => -> { with(Brokerd, settings) { |server| idle_figures(server) } },
                      "iodine" => -> { with(Iodine) { |server| idle_figures(server) } },
                      "nchan" => -> { with(Nchan) { |server| idle_figures(server).slice(CLIENT_BYTES) } } }
      work(name, title, contestants,
           [[CLIENT_BYTES, "iodine", :at_most, target], [CLIENT_BYTES, "nchan"], [GC_GROWTH, nil, :at_most, 1.3], [GC_LEFT, nil], [GC_WHOLE_GROWTH, nil],
            [GC_GROWTH, "iodine"]], false)
    end

    def idle_figures(server)
      result = tool("ws_load", "idle", "--url", server.url("/sub"), *server.common, "--probe", "/settle", "--clients", 10_000, "--json", "--quiet")
      raise Spoiled, result["problem"] unless result["clean"]

      before, with = result.values_at("probe_before", "probe_after").map { |text| text.split.map(&:to_f) }
      { CLIENT_BYTES => result["memory_per_client"], GC_GROWTH => with[0] / before[0], GC_WHOLE_GROWTH => with[1] / before[1],
        GC_LEFT => with[0] / settled(server)[0] }
    end

    # The clients have left: the process answers for itself when it has seen all of them go.
    def settled(server)
      url = URI(server.url("/settle").sub("ws://", "http://"))
      Array.new(2) { Net::HTTP.get(url).split.map(&:to_f) }.last
    end

    def publish_cost
      with(Brokerd) do |server|
        result = program(server.client_environment, RbConfig.ruby, "-I#{ROOT}/adapter/lib", "#{PEERS}/publish_cost.rb")
        raise Spoiled, "#{result['refused']} calls were refused" unless result["refused"].zero?

        { CALL => result["us_per_call"] }
      end
    end

    # ---- as the work grows: brokerd beside itself ----

    def growth
      clients = { "brokerd" => 15_000, "1,000 clients" => 1_000 }.transform_values do |count|
        -> { with(Brokerd) { |server| load_figures("broadcast", *server.arguments("ws"), "--window", 16, "--clients", count) } }
      end
      sessions = { "brokerd" => 1_000, "4 sessions" => 4 }.transform_values { |count| -> { broker_figures("bench_broker", ["--subscribers", count, "--processes", 4, "--warm-up", 4]) } }
      channels = { "brokerd" => 1_000_000, "1,000 channels" => 1_000 }.transform_values do |count|
        -> { broker_figures("bench_broker", ["--channels", count]) }
      end
      [work("growth-clients", "WebSocket broadcast, 16 in flight, 15,000 clients", clients, [[DELIVERIES, "1,000 clients", :at_least, 0.7]], false),
       work("growth-sessions", "broker, 64 B, 1 → 1,000 sessions", sessions, [[DELIVERIES, "4 sessions", :at_least, 0.7], [CPU_MILLION, "4 sessions"]], false),
       work("growth-channels", "broker, 64 B, over 1,000,000 channels", channels, [[MESSAGES, "1,000 channels", :at_least, 0.8], [CPU_MESSAGE, "1,000 channels"]], false)]
    end

    # ---- running ----

    def work(name, title, contestants, rows, quick)
      Work.new(name, title, contestants, rows.map { |row| Comparison.new(*row) }, quick)
    end

    # A server of its own for each run: none inherits what another run left in its heap.
    def with(kind, *options)
      Dir.mktmpdir("brokerd-bench-") do |folder|
        server = kind.new(folder, *options)
        begin
          yield server
        ensure
          server.stop
        end
      end
    end

    def tool(name, *arguments)
      program({}, File.join(@bin, name), *arguments.map(&:to_s))
    end

    # A program that prints one JSON object, ended with us.
    def program(env, *command)
      Dir.mktmpdir("brokerd-bench-") do |folder|
        child = Support::Child.new(env, command, log: File.join(folder, "out"), errors: File.join(folder, "errors"), chdir: ROOT)
        begin
          child.wait(@seconds + 150)
          JSON.parse(child.output.lines.last || raise(Spoiled, child.errors.strip))
        rescue JSON::ParserError
          raise Spoiled, "#{File.basename(command.first)}: #{child.output[0, 200]} #{child.errors[0, 200]}"
        ensure
          child.stop
        end
      end
    end
  end
end
