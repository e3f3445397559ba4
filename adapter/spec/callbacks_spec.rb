# frozen_string_literal: true

require "spec_helper"

RSpec.describe "Callbacks" do
  lab

  it "S-20 calls on_open once, and what it writes comes first" do
    client = websocket("def on_open(client) = (report('open'); client.write('first'))\ndef on_message(client, data) = client.write('second')",
                       extra: Support::WebSocket.frame(1, "x"))
    expect([client.receive, client.receive]).to eq(%w[first second])
    expect(reports).to eq(%w[open])
  end

  it "S-21 calls nothing else before on_open has returned" do
    client = websocket(<<~RUBY, extra: Support::WebSocket.frame(1, "early") + Support::WebSocket.frame(8, [1000].pack("n")))
      def on_open(client)
        report('opening')
        sleep 0.3
        report('opened')
      end
      def on_message(client, data) = report("message \#{data}")
      def on_close(client) = report('closed')
    RUBY
    expect(client.close_code).to eq(1000)
    wait_for_report("closed")
    expect(reports).to eq(["opening", "opened", "message early", "closed"])
  end

  it "S-22 calls on_message for each message: a fragmented one once, an empty one too, pings never" do
    client = websocket("def on_message(client, data) = client.write(data.inspect)")
    client.send_frame(9, "ping")
    client.send_frame(1, "one ", fin: false)
    client.send_frame(9, "between")
    client.send_frame(0, "message")
    client.send_frame(10, "pong")
    client.text("")
    expect([client.receive, client.receive]).to eq(['"one message"', '""'])
  end

  it "S-23 never calls on_message for SSE" do
    stream = event_stream("def on_open(client) = client.write('open')\ndef on_message(client, data) = report('message')")
    stream.socket.write("some bytes")
    expect(stream.receive).to eq("open")
    expect(reports).to be_empty
  end

  it "S-24 gives text as UTF-8 and the rest as binary" do
    client = websocket("def on_message(client, data) = client.write([data.encoding.name, data.valid_encoding?, data.bytesize].inspect)")
    client.text("grüße")
    client.binary("gr\xFC\xDFe")
    expect([client.receive, client.receive]).to eq(['["UTF-8", true, 7]', '["ASCII-8BIT", true, 5]'])
  end

  it "S-25 gives a fresh String each time, which may be kept and changed" do
    client = websocket(<<~RUBY)
      def on_message(client, data)
        (@kept ||= []) << data
        data << "!"
        client.write(@kept.join(",")) if @kept.size == 3
      end
    RUBY
    %w[a b c].each { |text| client.text(text) }
    expect(client.receive).to eq("a!,b!,c!")
  end

  it "S-26 keeps the order of arrival, split oddly" do
    client = websocket(<<~RUBY)
      def on_message(client, data)
        (@seen ||= []) << data.to_i
        client.write((@seen == (0...1000).to_a).to_s) if @seen.size == 1000
      end
    RUBY
    bytes = (0...1000).map { |n| Support::WebSocket.frame(1, n.to_s) }.join
    random = Random.new(7)
    client.socket.write(bytes.slice!(0, random.rand(1..997))) until bytes.empty?
    expect(client.receive).to eq("true")
  end

  it "S-27 never runs two callbacks of one client at once" do
    client = websocket(<<~RUBY)
      def on_message(client, data)
        @now = (@now || 0) + 1
        @most = [@most || 0, @now].max
        sleep 0.005
        @now -= 1
        client.write(@most.to_s) if data == "last"
      end
    RUBY
    40.times { client.text("x") }
    client.text("last")
    expect(client.receive).to eq("1")
  end

  it "S-28 runs callbacks of different clients side by side" do
    slow = websocket("def on_message(client, data) = (report('busy'); sleep(1); client.write('done'))")
    quick = websocket("def on_message(client, data) = client.write(data)")
    slow.text("x")
    wait_for_report("busy")
    started = now
    quick.text("hello")
    expect(quick.receive).to eq("hello")
    expect(now - started).to be < 0.5
    expect(slow.receive).to eq("done")
  end

  it "S-29 S-52 calls on_drained after pending was non-zero, which is then 0" do
    client = websocket(<<~RUBY)
      def on_message(client, data)
        client.write('x' * 20_000_000)
        report("pending \#{client.pending}")
      end
      def on_drained(client) = report("drained \#{client.pending}")
    RUBY
    client.text("go")
    wait_for_report("pending 1")
    expect(reports.grep(/drained/)).to be_empty
    expect(client.receive.bytesize).to eq(20_000_000)
    wait_for_report("drained 0")
  end

  describe "S-31 on_close comes once, with the client closed, whatever the reason:" do
    methods = <<~RUBY
      def on_open(client) = client.write('open')
      def on_message(client, data)
        case data
        when 'close' then client.close
        when 'raise' then raise 'on purpose'
        end
      end
      def on_close(client) = report("closed \#{client.open?} \#{client.pending} \#{client.write('late')} \#{client.subscribe('late').inspect}")
    RUBY
    reasons = {
      "the client's close frame" => ->(c) { c.close },
      "the client's end of stream" => ->(c) { c.drop },
      "a reset" => ->(c) { c.reset },
      "an unmasked frame" => ->(c) { c.send_frame(1, "x", mask: false) },
      "a reserved opcode" => ->(c) { c.send_frame(3, "x") },
      "bad UTF-8" => ->(c) { c.text("\xFF") },
      "a message over the limit" => ->(c) { c.text("x" * 300_000) },
      "client.close" => ->(c) { c.text("close") },
      "an exception, then the client's close" => ->(c) { c.text("raise").then { c.close } }
    }
    reasons.each do |reason, act|
      it reason do
        client = websocket(methods)
        expect(client.receive).to eq("open")
        act.call(client)
        client.finish unless client.socket.closed?
        expect(wait_for_report(/closed/)).to eq("closed false -1 false nil")
        expect(reports.size).to eq(1)
      end
    end

    it "an EventSource that went away" do
      stream = event_stream("def on_open(client) = client.write('open')\ndef on_close(client) = report('closed')")
      expect(stream.receive).to eq("open")
      stream.drop
      wait_for_report("closed")
    end
  end

  it "S-31 closes with 1007 for bad UTF-8, 1009 for too much, 1002 for a broken frame" do
    { ["\xC3\x28", 1, {}] => 1007, ["x" * 300_000, 1, {}] => 1009, ["x", 1, { mask: false }] => 1002, ["x", 1, { rsv: 4 }] => 1002 }.each do |(payload, opcode, options), code|
      client = websocket("def on_message(client, data) = nil")
      client.send_frame(opcode, payload, **options)
      expect(client.close_code).to eq(code)
    end
  end

  it "S-32 does not call on_close while another callback runs" do
    client = websocket("def on_message(client, data) = (report('in'); sleep(0.3); report('out'))\ndef on_close(client) = report('closed')")
    client.text("x")
    wait_for_report("in")
    client.reset
    wait_for_report("closed")
    expect(reports).to eq(%w[in out closed])
  end

  it "S-35 logs an exception in any callback, calls on_error, and goes on" do
    client = websocket(<<~RUBY)
      def on_open(client) = raise('from on_open')
      def on_message(client, data) = raise(NotImplementedError, 'from on_message')
      def on_close(client) = raise('from on_close')
      def on_error(client, error) = report("error \#{error.message} \#{client.open?}")
    RUBY
    wait_for_report("error from on_open true")
    client.text("x")
    wait_for_report("error from on_message true")
    client.close
    wait_for_report("error from on_close false")
    expect(lab.log).to include("on_message raised NotImplementedError: from on_message")
    expect(websocket("def on_message(client, data) = client.write(data)").tap { |c| c.text("on") }.receive).to eq("on")
  end

  it "S-36 calls on_close after an on_open that raised or closed at once" do
    client = websocket("def on_open(client) = raise('x')\ndef on_close(client) = report('closed after raise')")
    client.close
    wait_for_report("closed after raise")
    client = websocket("def on_open(client) = client.close\ndef on_close(client) = report('closed at once')")
    expect(client.close_code).to eq(1000)
    client.close
    wait_for_report("closed at once")
  end

  it "S-37 has as many on_close as on_open when clients vanish during the handshake" do
    code = Support::Lab.upgrading("def on_open(client) = report('open')\ndef on_close(client) = report('close')")
    headers = { "X-Lab" => [code].pack("m0"), "X-Report" => report_file }
    50.times do |n|
      socket = TCPSocket.new("127.0.0.1", lab.port)
      socket.write(Support::WebSocket.request("/", headers, SecureRandom.base64(16)))
      socket.setsockopt(Socket::SOL_SOCKET, Socket::SO_LINGER, [1, 0].pack("ii")) if n.odd?
      socket.close
    end
    websocket("def on_open(client) = report('last')\ndef on_message(client, data) = nil")
    wait_for_report("last")
    wait_for("balance") { reports.count("open") == reports.count("close") }
  end

  it "a callback thread that is killed is replaced, and its client lives on" do
    client = websocket("def on_message(client, data) = data == 'kill' ? Thread.current.kill : client.write(data)")
    10.times do
      client.text("kill")
      client.text("still here")
      expect(client.receive).to eq("still here")
    end
  end

  it "S-34 on_drained waits for on_message, and neither for ever" do
    client = websocket("def on_message(client, data) = (client.write('x' * 3_000_000); report('wrote'))\ndef on_drained(client) = report('drained')")
    client.text("go")
    wait_for_report("wrote")
    client.receive
    wait_for_report("drained")
  end
end
