# frozen_string_literal: true

# The demo's processes: a brokerd and a Puma cluster that serves the chat. `scripts/demo` has built them.
require "json"
require "net/http"
require "optparse"
require "tmpdir"
%w[deadline ports child broker web_socket event_stream].each do |file|
  require_relative "../../adapter/spec/support/#{file}"
end

# Starts both, and ends both.
class Demo
  ROOT = File.expand_path("../..", __dir__)

  attr_reader :port, :broker

  def initialize(folder, port:, workers:)
    @folder = folder
    @port = port
    @broker = Support::Broker.new(folder, ["--no-journal"])
    command = [Gem.bin_path("puma", "puma"), "-w", workers.to_s, "-t", "1:5", "-b", "tcp://127.0.0.1:#{port}", "-e", "production", "-C", "-",
               File.join(ROOT, "examples/chat/config.ru")]
    @puma = Support::Child.new({ "BROKERD_URL" => @broker.url }, [RbConfig.ruby, "-I#{ROOT}/adapter/lib", *command],
                               log: File.join(folder, "puma.log"), chdir: ROOT)
    await
  end

  def publish_line(message)
    %(build/bin/brokerctl publish --url #{@broker.url} chat "#{message}")
  end

  def running?
    @puma.alive?
  end

  def stop
    @puma&.stop("INT")
    @broker&.stop
  end

  def log
    @puma.output
  end

  private

  def await
    Support::Deadline.wait_for("Puma to answer on port #{@port}", 30) do
      raise "Puma ended:\n#{@puma.output}" unless @puma.alive?

      Net::HTTP.get_response("127.0.0.1", "/", @port).is_a?(Net::HTTPOK)
    rescue SystemCallError, EOFError
      false
    end
  end
end

# Real clients in every worker, and one message down each road.
class DemoCheck
  def initialize(demo, workers)
    @demo = demo
    @workers = workers
    @websockets = {}
    @streams = {}
  end

  def run
    connect
    road("brokerctl publish") { |text| @demo.broker.publish("chat", text) }
    road("a browser in the first worker") { |text| @websockets.values.first.text(JSON.generate(name: "A", text: text)) }
    road("a browser in the last worker") { |text| @websockets.values.last.text(JSON.generate(name: "B", text: text)) }
    road("Ruby code in a request") { |text| Net::HTTP.get_response("127.0.0.1", "/say?text=#{text}", @demo.port) }
    puts "demo check: everything arrived"
  end

  private

  # Connects until there is a client of each kind in each worker: the kernel chooses the worker.
  def connect
    [[@websockets, Support::WebSocket], [@streams, Support::EventStream]].each do |clients, kind|
      Support::Deadline.wait_for("#{kind.name[/\w+\z/]} clients in #{@workers} workers", 20) do
        client = kind.connect(@demo.port, "/live")
        pid = JSON.parse(client.receive).fetch("process")
        clients.key?(pid) ? client.drop : clients[pid] = client
        clients.size == @workers
      end
    end
    puts "WebSocket and EventSource clients in processes #{@websockets.keys.sort.join(' and ')}"
  end

  def road(name)
    text = "message-#{rand(1_000_000)}"
    started = Support::Deadline.now
    yield text
    all = @websockets.to_a.product([:websocket]) + @streams.to_a.product([:sse])
    all.each { |(pid, client), kind| expect(client, text, "#{kind} in #{pid}, published by #{name}") }
    puts format("%-30s reached %d WebSockets and %d event streams in %.1f ms", name, @websockets.size, @streams.size,
                (Support::Deadline.now - started) * 1000)
  end

  def expect(client, text, what)
    got = client.receive
    raise "#{what}: #{got.inspect} instead of #{text}" unless got&.include?(text)
  end
end

$stdout.sync = true
options = { port: 3000, workers: 2 }
OptionParser.new do |parser|
  parser.banner = "usage: scripts/demo [--port N] [--workers N] [--check]"
  parser.on("--port N", Integer) { |n| options[:port] = n }
  parser.on("--workers N", Integer) { |n| options[:workers] = n }
  parser.on("--check") { options[:check] = true }
end.parse!
abort "scripts/demo: --workers must be at least 1" unless options[:workers].positive?
options[:port] = Support::Ports.free if options[:check]

interrupted = false
%w[INT TERM HUP].each { |name| trap(name) { interrupted = true } }
status = Dir.mktmpdir("brokerd-demo") do |folder|
  demo = Demo.new(folder, port: options[:port], workers: options[:workers])
  begin
    if options[:check]
      DemoCheck.new(demo, options[:workers]).run
    else
      puts "", "The chat:        http://127.0.0.1:#{options[:port]}/   (open it in two windows)",
           "From a shell:    #{demo.publish_line('hello from a shell')}", "ctrl-C ends it.", ""
      sleep 0.2 while demo.running? && !interrupted
      warn demo.log unless interrupted
    end
    interrupted || options[:check] ? 0 : 1
  rescue StandardError => e
    warn "demo check failed: #{e.message}", "Puma's log:", demo.log
    1
  ensure
    demo.stop
  end
rescue StandardError => e
  warn "scripts/demo: #{e.message}"
  1
end
exit status
