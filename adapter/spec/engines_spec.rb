# frozen_string_literal: true

require "spec_helper"

RSpec.describe "Engines" do
  engine = <<~'RUBY'
    class Recorder < Brokerd::PubSub::Engine
      attr_reader :calls
      def initialize = @calls = Queue.new
      def subscribe(to, is_pattern = false) = @calls << [:subscribe, to, is_pattern]
      def unsubscribe(from, is_pattern = false) = @calls << [:unsubscribe, from, is_pattern]
      def publish(channel, message) = @calls << [:publish, channel, message]
      def next = @calls.pop
    end
    $stdout.sync = true
  RUBY
  let(:engine) { engine }

  # What the program prints.
  def lines_of(program)
    child = ruby("#{engine}\n#{program}")
    raise child.errors unless child.status.success?

    child.output.lines(chomp: true)
  end

  it "P-40 P-46 an engine is told of existing and future subscriptions" do
    expect(lines_of(<<~RUBY)).to eq(['[:subscribe, "a", false]', '[:subscribe, "p*", true]', '[:unsubscribe, "a", false]'])
      Brokerd.subscribe("a") { }
      sleep 0.05 until Brokerd.stats[:channels] == 1
      Brokerd::PubSub.attach(engine = Recorder.new)
      p engine.next
      Brokerd.subscribe("p*", true) { }
      p engine.next
      Brokerd.unsubscribe("a")
      p engine.next
    RUBY
  end

  it "P-41 P-42 P-44 several at once; detach ends it, also of one that is not attached; reset tells all again" do
    expect(lines_of(<<~RUBY)).to eq(["2", '[:subscribe, "a", false]', '[:subscribe, "b", false]', "0"])
      one, two = Recorder.new, Recorder.new
      Brokerd::PubSub.attach(one)
      Brokerd::PubSub.attach(two)
      Brokerd::PubSub.attach(two)
      Brokerd.subscribe("a") { }
      p [one, two].map(&:next).size
      Brokerd::PubSub.detach(one)
      Brokerd::PubSub.detach(Recorder.new)
      Brokerd::PubSub.reset(two)
      p two.next
      Brokerd.subscribe("b") { }
      p two.next, one.calls.size
    RUBY
  end

  it "P-43 default= routes publish, and nil makes it the cluster again" do
    expect(lines_of(<<~RUBY)).to eq(['[true, [:publish, "a", "one"], false, true, true]'])
      before = Brokerd::PubSub.default
      Brokerd::PubSub.default = engine = Recorder.new
      result = Brokerd.publish("a", "one")
      seen = engine.next
      Brokerd.publish("a", "elsewhere", false)
      Brokerd::PubSub.default = nil
      error = begin; Brokerd::PubSub.default = Object.new; rescue TypeError; true; end
      p [result ? true : false, seen, engine.calls.size > 0, before.equal?(Brokerd::PubSub::CLUSTER) && Brokerd::PubSub.default.equal?(before), error]
    RUBY
  end

  it "P-45 is told once for each channel, not for each client" do
    app = <<~RUBY
      #{Support::Lab::CLASSES}
      class Recorder < Brokerd::PubSub::Engine
        def subscribe(to, is_pattern = false) = report("+ \#{to} \#{is_pattern}")
        def unsubscribe(from, is_pattern = false) = report("- \#{from} \#{is_pattern}")
      end
      Brokerd::PubSub.attach(Recorder.new)
      use Brokerd::Middleware
      run ->(env) { Lab.new(env).call }
    RUBY
    server = start_server(app)
    3.times do
      clients = Array.new(10) { websocket("def on_open(client) = (client.subscribe('once'); client.write('open'))", server: server).tap(&:receive) }
      clients.each(&:drop)
      server.wait_for("balance") { server.reports.count("+ once false") == server.reports.count("- once false") && server.reports.any? }
    end
    expect(server.reports).to eq(["+ once false", "- once false"] * 3)
  end

  it "P-20 P-48 publish with an engine calls it with String message; the channel as it was given" do
    expect(lines_of(<<~RUBY)).to eq(['[:publish, "a", "m"]', '[:publish, "b", "n"]'])
      engine = Recorder.new
      Brokerd.publish("a", "m", engine)
      p engine.next
      engine.publish("b", "n")
      p engine.next
    RUBY
  end

  it "P-47 an engine that raises is logged, and neither the application nor other engines suffer" do
    child = ruby(<<~RUBY)
      #{engine}
      class Bad < Recorder
        def subscribe(*) = raise("bad subscribe")
        def publish(*) = raise("bad publish")
      end
      Brokerd::PubSub.attach(Bad.new)
      Brokerd::PubSub.attach(good = Recorder.new)
      Brokerd.subscribe("a") { |_, m| puts m }
      p good.next, Brokerd.publish("a", "m", Bad.new)
      Brokerd.publish("a", "works", false)
      sleep 0.2
    RUBY
    expect(child.output.lines(chomp: true)).to eq(['[:subscribe, "a", false]', "false", "works"])
    expect(child.errors).to include("bad subscribe").and include("bad publish")
  end

  it "P-49 P-50 a loopback engine delivers with publish(channel, message, false), from within its own callbacks too" do
    expect(lines_of(<<~RUBY)).to eq(["via loop", "told"])
      class Loop < Brokerd::PubSub::Engine
        def subscribe(to, is_pattern = false)
          Brokerd.publish("log", "told", false) if to == "late"
          true
        end
        def publish(channel, message) = Brokerd.publish(channel, "via " + message, false)
      end
      out = Queue.new
      Brokerd::PubSub.attach(Loop.new)
      Brokerd::PubSub.default = Loop.new
      Brokerd.subscribe("a") { |_, m| out << m }
      Brokerd.subscribe("log") { |_, m| out << m }
      Brokerd.publish("a", "loop")
      puts out.pop
      Brokerd.subscribe("late") { }
      puts out.pop
    RUBY
  end

  it "refuses what is no engine" do
    expect { Brokerd::PubSub.attach(Object.new) }.to raise_error(TypeError, /subscribe, unsubscribe, publish/)
  end

  it "P-40 neither misses nor doubles a notice under subscribe, unsubscribe and attach at once" do
    expect(lines_of(<<~'RUBY')).to eq(%w[true true true])
      engines = []
      threads = Array.new(8) do |t|
        Thread.new do
          random = Random.new(t)
          3000.times do |turn|
            Brokerd::PubSub.attach(Recorder.new.tap { |engine| engines << engine }) if turn % 1000 == 500
            name = "c#{random.rand(50)}-#{t}"
            random.rand(2).zero? ? Brokerd.subscribe(name) { } : Brokerd.unsubscribe(name)
          end
          (0...50).each { |n| n.even? ? Brokerd.subscribe("c#{n}-#{t}") { } : Brokerd.unsubscribe("c#{n}-#{t}") }
        end
      end
      threads.each(&:join)
      expected = (0...8).flat_map { |t| (0...50).select(&:even?).map { |n| "c#{n}-#{t}" } }.sort
      doubled = missed = false
      engines.each do |engine|
        picture = {}
        until picture.keys.sort == expected && engine.calls.empty?
          method, name, = engine.calls.pop(timeout: 5) rescue engine.calls.pop
          if method == :subscribe
            doubled = true if picture[name]
            picture[name] = true
          else
            missed = true unless picture.delete(name)
          end
        end
      end
      p engines.size == 24, !doubled, !missed
    RUBY
  end
end
