# frozen_string_literal: true

require "spec_helper"

RSpec.describe "Pub/Sub" do
  lab

  # A client that runs the Ruby code it is sent, with `client` and `report` at hand, and answers with the result.
  def console(kind = :websocket, methods = "")
    send(kind, "def on_message(client, data) = client.write(\"= \" + instance_exec(client) { |client| eval(data) }.inspect)\n#{methods}")
  end

  def run(client, code)
    client.text(code)
    nil until (answer = client.receive).start_with?("= ")
    answer.delete_prefix("= ")
  end

  # Runs code in the server, outside any client.
  def in_server(code)
    get("[200, { 'content-type' => 'text/plain' }, [(#{code}).inspect]]").body
  end

  # All subscriptions that the console's client made so far are in force, since they go to the broker in
  # order: one more is made, and published to until something comes.
  def settle(client)
    channel = "settle-#{SecureRandom.hex(4)}"
    run(client, "client.subscribe('#{channel}')")
    drain(client, channel)
    run(client, "client.unsubscribe('#{channel}')")
  end

  # Publishes to a channel with one subscription until it comes, and reads it all.
  def drain(client, channel)
    wait_for("the subscription") do
      broker.publish(channel, "mark")
      client.receive(0.2)
    rescue RuntimeError
      nil
    end
    broker.publish(channel, "last mark")
    nil until client.receive == "last mark"
  end

  it "P-2 takes all forms of subscribe" do
    forms = ["'a1'", "'a2', false", "'a*3', true", "to: 'a4'", "'a5', match: nil", "'a*6', match: :redis", "to: 'a*7', match: :glob", ":a8"]
    client = console
    expect(forms.map { |form| run(client, "client.subscribe(#{form})") }).to all(eq("true"))
    settle(client)
    (1..8).each { |n| in_server("Brokerd.publish('a#{n}', 'to a#{n}')") }
    expect(Array.new(8) { client.receive }).to eq((1..8).map { |n| "to a#{n}" })
  end

  it "P-2 refuses wrong arguments" do
    client = console
    { "client.subscribe" => "ArgumentError", "client.subscribe(5)" => "TypeError", "client.subscribe(nil)" => "TypeError",
      "client.subscribe('a[', true)" => "ArgumentError", "client.subscribe('a[]', true)" => "ArgumentError",
      "client.subscribe('x' * 4097)" => "ArgumentError", "client.subscribe('a', match: :sql)" => "ArgumentError",
      "client.subscribe('a', as: :json)" => "ArgumentError", "client.subscribe('a', wrong: 1)" => "ArgumentError" }.each do |code, error|
      expect(run(client, "begin; #{code}; rescue StandardError => e; e.class; end")).to eq(error), code
    end
    expect(run(client, "client.subscribe('x' * 4096)")).to eq("true")
  end

  it "P-3 P-4 patterns are globs as Redis has them, and a name that overlaps is served by itself" do
    client = console
    %w[g.* g.?x g.[ab]c g.\\\\*].each { |pattern| run(client, "client.subscribe('#{pattern}', true)") }
    run(client, "client.subscribe('g.1')")
    settle(client)
    in_server("Brokerd.publish('g.1', 'twice')")
    expect([client.receive, client.receive]).to eq(%w[twice twice])
    in_server("Brokerd.publish('g.*', 'both')")
    expect([client.receive, client.receive]).to eq(%w[both both])
    in_server("Brokerd.publish('g.ac', 'class'); Brokerd.publish('g.zx', 'one byte'); Brokerd.publish('G.1', 'case'); Brokerd.publish('g.end', 'end')")
    expect(Array.new(5) { client.receive }).to eq(["class", "class", "one byte", "one byte", "end"])
  end

  it "P-3 patterns that say nothing certain are refused past 64 of a process, which is logged and counted" do
    program = ruby(<<~'RUBY')
      patterns = (1..65).map { |n| "?" * n }
      got = Queue.new
      patterns.each { |pattern| Brokerd.subscribe(pattern, true) { |channel, _| got << channel.size } }
      sleep 0.01 until Brokerd.stats[:subscriptions_refused] == 1 && Brokerd.stats[:patterns] >= 64
      p Brokerd.stats[:patterns]
      Brokerd.publish("x" * 65, "refused", false)
      Brokerd.publish("x" * 64, "taken", false)
      p got.pop, got.empty?
    RUBY
    expect(program.output.lines(chomp: true)).to eq(%w[64 64 true]), program.errors
    expect(program.output + program.errors).to include("too many patterns without a literal part")
  end

  it "P-5 Symbols are the same as Strings" do
    client = console
    run(client, "client.subscribe(:symbol)")
    run(client, "client.subscribe('string')")
    settle(client)
    in_server("Brokerd.publish('symbol', 'one'); Brokerd.publish(:string, 'two')")
    expect([client.receive, client.receive]).to eq(%w[one two])
    expect(run(client, "client.unsubscribe('symbol')")).to eq("true")
  end

  it "P-6 calls the block with the channel and the message, for a pattern with the channel published to" do
    client = console
    run(client, "client.subscribe('b1') { |from, message| client.write([from, message, message.encoding.name].inspect) }")
    run(client, "client.subscribe('b?', true) { |from, message| client.write([from, message].inspect) }")
    settle(client)
    in_server("Brokerd.publish('b2', 'x'); Brokerd.publish('b1', 'text')")
    expect(Array.new(3) { client.receive }).to contain_exactly('["b2", "x"]', '["b1", "text", "UTF-8"]', '["b1", "text"]')
    in_server("Brokerd.publish('b1', \"\\xFF\".b)")
    expect([client.receive, client.receive].grep(/ASCII-8BIT/).size).to eq(1)
  end

  it "P-7 without a block data goes straight to the client: text, binary, events, the publisher too; as: overrides" do
    client = console
    forced = console
    stream = event_stream("def on_open(client) = (client.subscribe('direct'); client.write('open'))")
    run(client, "client.subscribe('direct')")
    run(forced, "client.subscribe('direct', as: :binary)")
    drain(stream, "direct")
    settle(client)
    settle(forced)
    client.text("client.publish('direct', 'text'); client.publish('direct', \"\\xFFbytes\".b)")
    frames = []
    frames << client.receive_frame until frames.size == 3
    expect(frames.reject { |_, payload| payload.start_with?("=") }).to eq([[1, "text"], [2, "\xFFbytes".b]])
    frames = []
    frames << forced.receive_frame until frames.last&.last == "\xFFbytes".b
    expect(frames.last(2)).to eq([[2, "text"], [2, "\xFFbytes".b]])
    seen = []
    seen << stream.receive until seen.last == "\uFFFDbytes"
    expect(seen.last(2)).to eq(["text", "\uFFFDbytes"])
  end

  it "P-8 subscribing without a block outside a client raises" do
    expect(in_server("begin; Brokerd.subscribe('x'); rescue => e; e.class; end")).to eq("ArgumentError")
    expect(in_server("begin; Rack::PubSub.subscribe('x'); rescue => e; e.class; end")).to eq("ArgumentError")
  end

  it "P-9 the same name and kind again replaces, with and without a block" do
    client = console
    run(client, "client.subscribe('r')")
    run(client, "client.subscribe('r')")
    settle(client)
    in_server("Brokerd.publish('r', 'once'); Brokerd.publish('r', 'end')")
    expect([client.receive, client.receive]).to eq(%w[once end])
    run(client, "client.subscribe('r') { |_, m| client.write('block 1 ' + m) }")
    run(client, "client.subscribe('r') { |_, m| client.write('block 2 ' + m) }")
    wait_for("the block") { in_server("Brokerd.publish('r', 'x')") && client.receive == "block 2 x" }
    run(client, "client.subscribe('r')")
    wait_for("direct") { in_server("Brokerd.publish('r', 'y')") && client.receive == "y" }
    in_server("Brokerd.publish('r', 'z')")
    nil until (got = client.receive) != "y"
    expect(got).to eq("z")
  end

  it "P-9 holds for global subscriptions" do
    in_server("Brokerd.subscribe('g9') { |_, m| report('first ' + m) }; Brokerd.subscribe('g9') { |_, m| report('second ' + m) }; 1")
    wait_for("it") { in_server("Brokerd.publish('g9', 'x')") && reports.any? }
    expect(reports).to all(eq("second x"))
    expect(in_server("[Brokerd.unsubscribe('g9'), Brokerd.unsubscribe('g9')]")).to eq("[true, false]")
  end

  it "P-10 P-12 a client's subscriptions end with it; subscribe then gives nil" do
    client = console(:websocket, "def on_close(client) = report(\"closed \#{client.subscribe('x').inspect}\")")
    run(client, "client.subscribe('gone-#{Process.pid}') { report('delivered') }")
    run(client, "client.subscribe('gone-#{Process.pid}*', true)")
    wait_for("the broker to know") { broker.ctl("channels", "--json").first.include?("gone-#{Process.pid}") }
    client.close
    wait_for_report("closed nil")
    wait_for("the broker to forget") { !broker.ctl("channels", "--json").first.include?("gone-#{Process.pid}") }
    broker.publish("gone-#{Process.pid}", "x")
    expect(in_server("Brokerd.publish('gone-#{Process.pid}', 'x', false)")).to eq("true")
    expect(reports).to eq(["closed nil"])
  end

  it "P-13 unsubscribe cancels; a name and a pattern are different; an unknown one does no harm" do
    client = console
    run(client, "client.subscribe('u*')")
    run(client, "client.subscribe('u*', true)")
    expect(run(client, "client.unsubscribe('unknown')")).to eq("false")
    settle(client)
    expect(run(client, "client.unsubscribe('u*')")).to eq("true")
    in_server("Brokerd.publish('u1', 'pattern'); Brokerd.publish('u2', 'end')")
    seen = []
    seen << client.receive until seen.last == "end"
    expect(seen.last(2)).to eq(%w[pattern end])
    expect(run(client, "client.unsubscribe('u*', true)")).to eq("true")
    expect(run(client, "client.unsubscribe(to: 'u*', match: :redis)")).to eq("false")
  end

  it "P-14 P-19 publish works from everywhere: client, module, Rack::PubSub, plain threads, engines" do
    client = console
    run(client, "client.subscribe('p14')")
    settle(client)
    ["client.publish(:p14, '1')", "client.publish('p14', '2', nil)", "Brokerd.publish('p14', '3')", "Rack::PubSub.publish('p14', '4')",
     "Thread.new { Brokerd.publish('p14', '5') }.value", "Brokerd::PubSub::CLUSTER.publish('p14', '6')",
     "Brokerd.publish('p14', '7', Brokerd::PubSub::CLUSTER)"].each_with_index do |code, n|
      client.text(code)
      expect([client.receive, client.receive]).to contain_exactly("= true", (n + 1).to_s)
    end
  end

  it "P-15 raises TypeError for a message that is no String, ArgumentError for one that is too large" do
    expect(in_server("[{ x: 1 }, nil, 5, :s].map { |m| Brokerd.publish('a', m) rescue $!.class }.uniq")).to eq("[TypeError]")
    expect(in_server("Brokerd.publish('a', 'x' * (8 * 1024 * 1024 + 1)) rescue $!.class")).to eq("ArgumentError")
    expect(in_server("Brokerd.publish('x' * 4097, '') rescue $!.class")).to eq("ArgumentError")
  end

  it "P-16 text subscribers never get invalid text, whatever is published" do
    client = console
    run(client, "client.subscribe('bytes')")
    settle(client)
    in_server("Brokerd.publish('bytes', (0..255).to_a.pack('C*')); Brokerd.publish('bytes', \"bad \\xFF\"); Brokerd.publish('bytes', 'gr\u00fc\u00dfe'.encode('UTF-16LE'))")
    expect(Array.new(3) { client.receive_frame }).to eq([[2, (0..255).to_a.pack("C*")], [2, "bad \xFF".b], [1, "grüße".b]])
    broker.ctl("publish", "bytes", "\xC3\x28")
    opcode, payload = client.receive_frame
    expect([opcode, payload]).to eq([2, "\xC3\x28".b])
  end

  it "P-17 publish with false or PROCESS reaches this process alone, without the broker" do
    client = console
    run(client, "client.subscribe('here')")
    client.text("client.publish('here', 'local', false) && Brokerd.publish('here', 'local 2', Brokerd::PubSub::PROCESS)")
    expect(Array.new(3) { client.receive }).to contain_exactly("= true", "local", "local 2")
    other = ruby("Brokerd.subscribe('here') { |_, m| puts m }; Brokerd.start; Brokerd.publish('here', 'mine', false); sleep 0.3")
    expect(other.output.lines(chomp: true)).to include("mine")
  end

  it "P-50 a block may subscribe, unsubscribe, publish and close" do
    client = console
    run(client, <<~RUBY)
      client.subscribe('deep') do |_, message|
        client.subscribe('deeper') { |_, m| client.write('got ' + m); client.unsubscribe('deeper'); client.close }
        Brokerd.publish('deeper', message, false)
      end
    RUBY
    in_server("Brokerd.publish('deep', 'it', false)")
    expect(client.receive).to eq("got it")
    expect(client.close_code).to eq(1000)
  end

  it "a global subscription object can be cancelled, and its block's exceptions are logged" do
    in_server("$sub = Brokerd.subscribe('obj*', true) { |_, m| m == 'raise' ? raise('from a block') : report(m) }; 1")
    wait_for("it") { in_server("Brokerd.publish('obj', 'x')") && reports.include?("x") }
    in_server("Brokerd.publish('obj', 'raise')")
    wait_for("the log") { lab.log.include?("from a block") }
    expect(in_server("[$sub.name, $sub.pattern?, $sub.active?, $sub.cancel, $sub.active?, $sub.cancel]")).to eq('["obj*", true, true, true, false, false]')
  end

  describe "a client class of another server, extended with prepend (P-30, P-31)" do
    foreign = <<~RUBY
      class Foreign
        attr_reader :written
        def initialize = (@open = true; @written = Queue.new)
        def open? = @open
        def write(data) = @written << data
        def close = @open = false
        def pubsub? = false
        def self.fresh
          new.tap { |client| client.class.prepend(Brokerd::PubSub) unless client.pubsub? }
        end
      end
    RUBY

    it "P-30 has the interface, however often it is prepended" do
      program = ruby(<<~RUBY)
        #{foreign}
        client = Foreign.fresh
        Foreign.prepend(Brokerd::PubSub)
        p client.pubsub?, client.subscribe("f"), client.subscribe("f"), client.subscribe("g") { |c, m| client.write([c, m].inspect) }
        client.publish("f", "process", false)
        p client.written.pop
        Brokerd.publish("g", "block", false)
        p client.written.pop, client.unsubscribe("f"), client.unsubscribe("f"), client.written.empty?
        Brokerd::Client.prepend(Brokerd::PubSub)
        p Brokerd::Client.ancestors.include?(Brokerd::PubSub)
      RUBY
      expect(program.output.lines(chomp: true)).to eq(["0", "true", "true", "true", '"process"', '"[\\"g\\", \\"block\\"]"', "true", "false", "true", "false"])
    end

    it "P-31 its subscriptions end when it is closed, also when nothing is published" do
      program = ruby(<<~RUBY)
        #{foreign}
        client = Foreign.fresh
        client.subscribe("f")
        client.subscribe("*", true)
        client.publish("f", "x", false)
        2.times { client.written.pop }
        sleep 0.01 until Brokerd.stats[:channels] + Brokerd.stats[:patterns] >= 2
        p Brokerd.stats[:channels] + Brokerd.stats[:patterns]
        client.close
        sleep 0.01 until Brokerd.stats[:channels] + Brokerd.stats[:patterns] == 0
        p client.subscribe("f"), client.written.empty?
      RUBY
      expect(program.output.lines(chomp: true)).to eq(%w[2 nil true])
    end
  end
end
