# frozen_string_literal: true

require "spec_helper"

RSpec.describe "brokerd/iodine" do
  # A Puma cluster with one of the examples and no line of ours before it.
  def example(name)
    start_server(File.read(File.expand_path("../../examples/iodine/#{name}.ru", __dir__)), workers: 2, prelude: "")
  end

  def connect(server, **options)
    websocket(server: server, **options)
  end

  # Says it until everyone's subscription is there.
  def until_heard(speaker, message, listener, expected)
    wait_for("#{expected} to be heard") do
      speaker.text(message)
      next_matching(listener, expected, 0.3)
    rescue RuntimeError
      nil
    end
  end

  def next_matching(client, expected, limit = 10)
    loop do
      message = client.receive(limit)
      return message if message.nil? || expected === message
    end
  end

  # What a program prints.
  def lines_of(program)
    child = ruby("require 'brokerd/iodine'\n#{program}")
    raise child.errors unless child.status.success?

    child.output.lines(chomp: true)
  end

  describe "the examples, on Puma with two workers" do
    it "echo greets and says what it is told, also as events" do
      server = example("echo")
      client = connect(server)
      expect(client.receive).to eq("Connected over websocket.")
      client.text("hello")
      expect(client.receive).to eq("hello")
      client.binary("\xff\x00".b)
      expect(client.receive).to eq("\xff\x00".b)
      expect(event_stream(server: server).receive).to eq("Connected over sse.")
    end

    it "chat: everyone hears everyone in both workers, one a whisper, all that somebody left" do
      server = example("chat")
      guests = %w[ada bob cid dan].to_h { |name| [name, connect(server, path: "/#{name}")] }
      guests.each_value { |guest| until_heard(guests["ada"], "hello", guest, "ada: hello") }
      until_heard(guests["ada"], "@bob psst", guests["bob"], "(whispered) ada: psst")
      guests["ada"].text("last")
      heard = []
      heard << guests["cid"].receive until heard.last == "ada: last"
      expect(heard.grep(/psst/)).to be_empty
      guests["dan"].close
      expect(next_matching(guests["bob"], "dan has left")).to eq("dan has left")
    end

    it "shootout: an echo to one, a broadcast to all with a result to the sender" do
      server = example("shootout")
      here, there = Array.new(2) { connect(server) }
      here.text('{"type":"echo","payload":1}')
      expect(here.receive).to eq('{"type":"echo","payload":1}')
      until_heard(here, '{"type":"broadcast","payload":2}', there, '{"type":"broadcast","payload":2}')
      got = [here.receive, here.receive]
      expect(got).to contain_exactly('{"type":"broadcast","payload":2}', '{"type":"broadcastResult","payload":2}')
    end

    it "engine: is told of a pattern as :redis, and what it stamps reaches the other worker" do
      server = example("engine")
      clients = Array.new(4) { connect(server) }
      clients.each { |client| until_heard(clients.first, "hello", client, "[news.readers] hello") }
      server.wait_for("the engine to be told") { server.log.match?(/wants all of news\.\*/) }
    end

    it "subprotocols: the first known one is chosen, and none known is refused" do
      server = example("subprotocols")
      client = connect(server, headers: { "Sec-WebSocket-Protocol" => "other, reverse, upper" })
      expect(client.headers["sec-websocket-protocol"]).to eq(["reverse"])
      client.text("abc")
      expect(client.receive).to eq("cba")
      expect(connect(server, headers: { "Sec-WebSocket-Protocol" => "other" }).status).to eq(400)
    end
  end

  it "has publish, subscribe and unsubscribe in iodine's forms" do
    expect(lines_of(<<~'RUBY')).to eq(["true", '["a.b", "one"]', '["a.b", "one"]', "[true, true, false]"])
      queue = Queue.new
      Iodine.subscribe(to: "a.*", match: :redis) { |source, message| queue << [source, message] }
      Iodine.subscribe("a.b", handler: ->(source, message) { queue << [source, message] })
      sleep 0.05 until Brokerd.stats.values_at(:channels, :patterns) == [1, 1]
      p Iodine.publish("a.b", "one")
      p queue.pop, queue.pop
      p [Iodine.unsubscribe(:"a.b"), Iodine.unsubscribe("a.*", match: :redis), Iodine.unsubscribe("a.b")]
    RUBY
  end

  it "has the classes and engines under iodine's names; attach, reset and detach tell nil or :redis" do
    expect(lines_of(<<~'RUBY')).to eq(["true", '["a", nil]', '["p*", :redis]', '["a", nil]', '["p*", :redis]', "0"])
      p [Iodine::Connection.equal?(Brokerd::Client), Iodine::PubSub::CLUSTER.equal?(Iodine::PubSub.default),
         Iodine::PubSub::PROCESS.equal?(Brokerd::PubSub::PROCESS)].all?
      class Told < Iodine::PubSub::Engine
        CALLS = Queue.new
        def subscribe(to, match = nil) = CALLS << [to, match]
      end
      Iodine.subscribe("a") { }
      Iodine.subscribe("p*", match: :redis) { }
      sleep 0.05 until Brokerd.stats.values_at(:channels, :patterns) == [1, 1]
      Iodine::PubSub.attach(engine = Told.new)
      Iodine::PubSub.attach(engine)
      puts [Told::CALLS.pop, Told::CALLS.pop].map(&:inspect).sort
      Iodine::PubSub.reset(engine)
      puts [Told::CALLS.pop, Told::CALLS.pop].map(&:inspect).sort
      Iodine::PubSub.detach(engine)
      Iodine.subscribe("b") { }
      sleep 0.05 until Brokerd.stats[:channels] == 2
      p Told::CALLS.size
    RUBY
  end

  it "what it leaves out raises NoMethodError, for constants NameError, with a hint" do
    expect(lines_of(<<~'RUBY').join("\n")).to match(/Thread.*puma -t.*Middleware.*write an engine.*upgrade and pub.*\[false, nil\]/m)
      [-> { Iodine.run { } }, -> { Iodine.threads = 4 }].each do |call|
        call.call
      rescue NoMethodError => e
        puts e.message
      end
      [-> { Iodine::Rack }, -> { Iodine::PubSub::Redis }, -> { Iodine::Unheard }].each do |call|
        call.call
      rescue NameError => e
        puts e.message
      end
      p [Iodine.respond_to?(:start), defined?(Iodine::TLS)]
    RUBY
  end

  it "refuses to stand in for an iodine that is loaded" do
    child = ruby("module Iodine; end\nbegin; require 'brokerd/iodine'; rescue LoadError => e; puts e.message; end")
    expect(child.output).to include("iodine, which is loaded already")
  end

  it "a middleware in the config.ru as well, and a map, upgrade once" do
    server = start_server(<<~RUBY, prelude: "")
      require "brokerd/iodine"
      class Echo
        def on_message(client, data) = client.write(data)
      end
      use Brokerd::Middleware
      map("/deep") { run ->(env) { env["rack.upgrade"] = Echo.new; [200, {}, []] } }
    RUBY
    client = connect(server, path: "/deep")
    client.text("once")
    expect(client.receive).to eq("once")
  end
end
