# frozen_string_literal: true

require "spec_helper"

RSpec.describe Brokerd::Client do
  lab

  let(:echo) { "def on_message(client, data) = client.write(data)" }

  it "S-40 env is the request's, with what the application set, without the server's own objects" do
    app = <<~RUBY
      env['my.key'] = 'mine'
      env['rack.upgrade'] = handler do
        def on_message(client, data) = client.write(data == 'keys' ? client.env.keys.join(' ') : client.env[data].to_s)
      end
      [200, {}, []]
    RUBY
    client = websocket(app: app, path: "/some/where?a=b", headers: { "X-Custom" => "yes", "Cookie" => "c=d" })
    { "PATH_INFO" => "/some/where", "QUERY_STRING" => "a=b", "HTTP_X_CUSTOM" => "yes", "HTTP_COOKIE" => "c=d", "my.key" => "mine",
      "rack.upgrade?" => "websocket" }.each do |key, value|
      client.text(key)
      expect(client.receive).to eq(value)
    end
    client.text("keys")
    expect(client.receive.split & %w[rack.hijack rack.hijack_io rack.input puma.socket rack.errors]).to be_empty
  end

  it "S-40 Last-Event-ID is in env" do
    stream = event_stream("def on_open(client) = client.write(client.env['HTTP_LAST_EVENT_ID'])", headers: { "Last-Event-ID" => "42" })
    expect(stream.receive).to eq("42")
  end

  it "S-41 write sends all of it, from 0 bytes to 50 MiB" do
    client = websocket("def on_message(client, data) = client.write('x' * data.to_i)")
    [0, 1, 125, 126, 65_535, 65_536, 1 << 20, 50 << 20].each do |size|
      client.text(size.to_s)
      expect(client.receive(30).bytesize).to eq(size)
    end
  end

  it "S-42 raises TypeError for what is no String, and the connection lives" do
    client = websocket(<<~RUBY)
      def on_message(client, data)
        errors = [nil, 5, :sym, { a: 1 }, ["a"]].map do |bad|
          client.write(bad)
        rescue TypeError => error
          error.class.name
        end
        client.write(errors.uniq.join)
      end
    RUBY
    client.text("go")
    expect(client.receive).to eq("TypeError")
  end

  it "S-43 S-51 write gives true, then false once closed; pending is then -1" do
    client = websocket(<<~RUBY)
      def on_message(client, data)
        before = client.write('x')
        client.close
        report([before, client.write('y'), client.open?, client.pending].inspect)
      end
    RUBY
    client.text("go")
    expect(wait_for_report(/\[/)).to eq("[true, false, false, -1]")
  end

  it "S-44 sends UTF-8 and US-ASCII as text, binary and invalid as binary, others transcoded" do
    client = websocket(<<~'RUBY')
      def on_message(client, data)
        client.write("grüße")
        client.write("ascii".encode("US-ASCII"))
        client.write("bytes".b)
        client.write("bad \xFF")
        client.write("grüße".encode("UTF-16LE"))
        client.write("grüße".encode("ISO-8859-1"))
        client.write("\x81".dup.force_encoding("Windows-1252"))
      rescue EncodingError => e
        client.write(e.class.name)
      end
    RUBY
    client.text("go")
    frames = Array.new(7) { client.receive_frame }
    expect(frames.map(&:first)).to eq([1, 1, 2, 2, 1, 1, 1])
    expect(frames.map { |_, payload| payload.dup.force_encoding("UTF-8") })
      .to eq(["grüße", "ascii", "bytes", "bad \xFF", "grüße", "grüße", "Encoding::UndefinedConversionError"])
  end

  it "S-45 write gives one well-formed event whatever the text holds" do
    texts = ["one", "two\nlines", "cr\rlf\r\nboth", "id: 7\nevent: forged\n\ndata: forged", "", "\n", " leading", "a\n\n\nb", ": comment"]
    stream = event_stream("def on_open(client) = #{texts.inspect}.each { |text| client.write(text) }")
    texts.each do |text|
      event = stream.event
      expect(event.data).to eq(text.gsub(/\r\n|\r/, "\n"))
      expect([event.type, event.id]).to eq(["message", nil])
    end
  end

  it "S-45 replaces invalid UTF-8 in an event" do
    stream = event_stream('def on_open(client) = ["a\xFFb", "\xE2\x82", "\xED\xA0\x80".b].each { |text| client.write(text) }')
    expect(Array.new(3) { stream.receive }).to eq(["a\uFFFDb", "\uFFFD", "\uFFFD\uFFFD\uFFFD"])
  end

  it "S-45 takes event:, id: and retry:" do
    stream = event_stream(<<~'RUBY')
      def on_open(client)
        client.write("named", event: "news", id: "7", retry: 1500)
        client.write("plain", event: nil, id: nil, retry: nil)
        client.write("symbol", event: :other, id: 8)
        client.write("two\nlines", event: "größer", id: "")
        client.write("now", retry: 0)
      end
    RUBY
    events = Array.new(4) { stream.event.to_a }
    expect(events).to eq([%w[news named 7], %w[message plain 7], %w[other symbol 8], ["größer", "two\nlines", ""]])
    expect(stream.receive).to eq("now")
    expect(stream.retries).to eq([1500, 0])
  end

  it "S-45 refuses what could forge a field in event: and id:, and a retry: that is no number of milliseconds" do
    stream = event_stream(<<~'RUBY')
      def on_open(client)
        bad = ["a\nb", "a\rb", "\r\n", "a\0b", "a\xFF"].flat_map { |text| [{ event: text }, { id: text }] }
        bad += [{ retry: -1 }, { retry: 1.5 }, { retry: "1" }, { retry: 1 << 80 }, { other: 1 }]
        refused = bad.map do |keywords|
          client.write("never", **keywords)
        rescue ArgumentError, TypeError => e
          e.class.name
        end
        client.write(refused.tally.inspect)
      end
    RUBY
    expect(stream.receive).to eq({ "ArgumentError" => 13, "TypeError" => 2 }.inspect)
  end

  it "S-45 refuses the keywords of an event on a WebSocket, open or closed, and the connection lives" do
    client = websocket(<<~RUBY)
      def on_message(client, data)
        refused = [{ event: 'x' }, { id: '1' }, { retry: 1 }].map do |keywords|
          client.write('never', **keywords)
        rescue ArgumentError => error
          error.message
        end
        client.write(refused.inspect, event: nil)
      end
      def on_close(client)
        client.write('late', event: 'x')
      rescue ArgumentError
        report('refused')
      end
    RUBY
    client.text("go")
    expect(client.receive).to match(/event: .*id: .*retry: is for event streams/)
    client.close
    wait_for_report("refused")
  end

  it "S-46 lets the String be changed afterwards" do
    client = websocket("def on_message(client, data) = (s = +'first' * 1000; client.write(s); s.replace('x'); client.write(s))")
    client.text("go")
    expect([client.receive, client.receive]).to eq(["first" * 1000, "x"])
  end

  it "S-47 close takes effect after what was written" do
    client = websocket("def on_message(client, data) = (client.write('x' * 900_000); client.write('y' * 100_000); client.close)")
    client.text("go")
    expect([client.receive.bytesize, client.receive.bytesize]).to eq([900_000, 100_000])
    expect(client.close_code).to eq(1000)
    client.close
    client.finish
  end

  it "S-47 closes an event stream after what was written" do
    stream = event_stream("def on_open(client) = (client.write('x' * 900_000); client.close)")
    expect(stream.receive.bytesize).to eq(900_000)
    expect(stream.receive).to be_nil
  end

  it "S-48 S-50 close gives nil at once, twice, from everywhere; open? is false from then on" do
    client = websocket(<<~RUBY)
      def on_message(client, data)
        client.write('x' * 3_000_000)
        started = Process.clock_gettime(Process::CLOCK_MONOTONIC)
        results = [client.open?, client.close, client.close, Thread.new { client.close }.value, client.open?]
        report("\#{results.inspect} \#{Process.clock_gettime(Process::CLOCK_MONOTONIC) - started < 0.1}")
      end
      def on_close(client) = report("closed \#{client.close.inspect} \#{client.open?}")
    RUBY
    client.text("go")
    wait_for_report("[true, nil, nil, nil, false] true")
    client.drop
    wait_for_report("closed nil false")
  end

  it "S-49 write does not block, however slow the reader" do
    client = websocket(<<~RUBY)
      def on_message(client, data)
        started = Process.clock_gettime(Process::CLOCK_MONOTONIC)
        5.times { client.write('x' * 200_000) }
        report("took \#{Process.clock_gettime(Process::CLOCK_MONOTONIC) - started < 0.1}")
      end
    RUBY
    client.text("go")
    wait_for_report("took true")
  end

  it "S-50 open? becomes false after a reset by the client" do
    client = websocket("def on_open(client) = Thread.new { sleep 0.01 while client.open?; report('not open') }\ndef on_message(client, data) = nil")
    client.reset
    wait_for_report("not open")
  end

  it "S-53 P-1 pubsub? is 0, the version of the pub/sub extension" do
    client = websocket("def on_open(client) = client.write(client.pubsub?.inspect)")
    expect(client.receive).to eq("0")
  end

  it "S-54 its class can be extended" do
    websocket("def on_open(client) = (client.class.prepend(Module.new { def shout(text) = write(text.upcase) }); report('extended'))")
    wait_for_report("extended")
    client = websocket("def on_message(client, data) = client.shout(data)")
    client.text("hello")
    expect(client.receive).to eq("HELLO")
  end

  it "S-55 is the same object in all callbacks, a Hash key, with room for instance variables" do
    client = websocket(<<~RUBY)
      def on_open(client)
        (@all = {})[client] = client.object_id
        client.instance_variable_set(:@mine, 'kept')
      end
      def on_message(client, data)
        GC.start
        GC.compact if GC.respond_to?(:compact)
        client.write([@all[client] == client.object_id, @all.key?(client), client.instance_variable_get(:@mine)].inspect)
      end
      def on_close(client) = report(@all[client] == client.object_id)
    RUBY
    client.text("go")
    expect(client.receive(30)).to eq('[true, true, "kept"]')
    client.close
    wait_for_report("true")
  end

  it "S-56 write is safe from any thread, each thread's order kept" do
    client = websocket(<<~RUBY)
      def on_message(client, data)
        8.times.map { |t| Thread.new { 1000.times { |n| client.write("\#{t} \#{n}") } } }.each(&:join)
        client.write('end')
      end
    RUBY
    client.text("go")
    seen = Hash.new { |h, k| h[k] = [] }
    while (message = client.receive) != "end"
      thread, number = message.split
      seen[thread] << number.to_i
    end
    expect(seen.size).to eq(8)
    expect(seen.values).to all(eq((0...1000).to_a))
  end

  it "S-33 S-60 S-61 S-62 S-63 handler= calls the old one's on_close, then the new one's on_open, and the client stays open" do
    client = websocket(<<~RUBY)
      def on_message(client, data)
        first = self
        client.subscribe('kept')
        second = Object.new
        second.define_singleton_method(:on_open) { |c| first.report("second opens"); c.write('second') }
        second.define_singleton_method(:on_message) { |c, d| c.write("second: \#{d}") }
        second.define_singleton_method(:on_close) { |c| first.report("second closes \#{c.open?}") }
        report(client.handler.equal?(first))
        client.handler = second
        report([client.handler.equal?(second), client.env['rack.upgrade'].equal?(second)].inspect)
        sleep 0.1
        report('first is done')
      end
      def on_close(client) = report("first closes \#{client.open?} \#{client.pending}")
    RUBY
    client.text("switch")
    client.text("next")
    expect([client.receive, client.receive]).to eq(["second", "second: next"])
    expect(get("Brokerd.publish('kept', 'still subscribed'); [200, {}, []]").status).to eq(200)
    expect(client.receive).to eq("still subscribed")
    client.close
    wait_for_report(/second closes/)
    expect(reports).to eq(["true", "[true, true]", "first is done", "first closes true 0", "second opens", "second closes false"])
  end

  it "S-61 S-62 handler= works from another thread, and with the same object" do
    client = websocket(<<~RUBY)
      def on_open(client)
        @opened = (@opened || 0) + 1
        client.write("open \#{@opened}")
        Thread.new { client.handler = self } if @opened == 1
      end
      def on_close(client) = report('close')
      def on_message(client, data) = client.write(data)
    RUBY
    expect([client.receive, client.receive]).to eq(["open 1", "open 2"])
    client.text("on")
    expect(client.receive).to eq("on")
    expect(reports).to eq(%w[close])
  end

  it "S-65 protocol is what rack.upgrade? was" do
    code = "def on_open(client) = client.write(client.protocol.inspect)"
    expect(websocket(code).receive).to eq(":websocket")
    expect(event_stream(code).receive).to eq(":sse")
  end

  it "S-64 S-66 timeout= sets the silence before a ping; SSE gets a comment" do
    code = "def on_open(client) = (client.write([client.timeout, client.timeout = 1, client.timeout].inspect))"
    client = websocket(code)
    expect(client.receive).to eq("[40, 1, 1]")
    expect(client.receive_frame.first).to eq(Support::WebSocket::PING)
    stream = event_stream(code)
    expect(stream.receive).to eq("[40, 1, 1]")
    expect(stream.comment).to be_a(String)
  end

  it "a handler that blocks stops the reading of its client alone" do
    blocked = websocket("def on_message(client, data) = (report('in'); sleep(0.5))")
    writer = Thread.new { 300.times { blocked.text("x" * 10_000) } }
    wait_for_report("in")
    other = websocket(echo)
    other.text("hello")
    expect(other.receive).to eq("hello")
    writer.kill
  end
end
