# frozen_string_literal: true

require "spec_helper"

# Peers that say nothing, or read nothing: they are ended, told of by on_close once, and counted.
RSpec.describe "Slow and silent clients" do
  lab("#{Support::Lab::CLASSES}\nuse Brokerd::Middleware, ping: 1, pong_timeout: 1, max_pending: 65_536\nrun ->(env) { Lab.new(env).call }")

  closing = "def on_close(client) = report(\"closed \#{client.open?} \#{client.pending} \#{client.write('late')} \#{client.subscribe('late').inspect}\")"
  flood = "def on_open(client) = client.write('open')\ndef on_message(client, data) = 300.times { client.write('x' * 100_000) }\n#{closing}"

  def stats
    get("[200, {}, [Brokerd.stats.slice(:evicted_slow, :evicted_stalled, :ping_timeouts).inspect]]").body
  end

  def counter(name)
    stats[/#{name}=>(\d+)/, 1].to_i
  end

  # Waits for on_close, and gives what it saw; exactly one has run.
  def closed_once
    wait_for_report(/closed/, 15).tap { expect(reports.grep(/closed/).size).to eq(1) }
  end

  it "S-31 S-66 a half-open peer is found by ping: on_close once, counted as a ping time-out" do
    before = counter(:ping_timeouts)
    client = websocket("def on_message(client, data) = nil\n#{closing}")
    expect(client.receive_frame).to eq([Support::WebSocket::PING, ""])
    expect(closed_once).to eq("closed false -1 false nil")
    expect(client.receive_frame).to be_nil
    expect(counter(:ping_timeouts)).to eq(before + 1)
  end

  it "S-66 a peer that answers pings, or sends anything, stays" do
    before = counter(:ping_timeouts)
    answering = websocket("def on_message(client, data) = client.write(data)\n#{closing}")
    3.times do
      opcode, payload = answering.receive_frame
      expect(opcode).to eq(Support::WebSocket::PING)
      answering.send_frame(Support::WebSocket::PONG, payload)
    end
    answering.text("still here")
    expect(answering.receive).to eq("still here")
    expect(reports).to be_empty
    expect(counter(:ping_timeouts)).to eq(before)
  end

  it "S-31 a reader that is too slow is evicted: on_close once, counted, 1008 at a frame's end when it reads on" do
    before = counter(:evicted_slow)
    client = websocket(flood)
    expect(client.receive).to eq("open")
    client.text("go")
    wait_for("eviction") { counter(:evicted_slow) == before + 1 }
    sizes = []
    while (opcode, payload = client.receive_frame)
      break if opcode == Support::WebSocket::CLOSE

      sizes << payload.bytesize
    end
    expect(sizes.uniq).to eq([100_000])
    expect(payload&.unpack1("n")).to eq(1008)
    expect(closed_once).to eq("closed false -1 false nil")
  end

  it "S-31 an event stream that does not read is evicted: on_close once, counted" do
    before = counter(:evicted_slow)
    stream = event_stream("def on_open(client) = 300.times { client.write('x' * 100_000) }\n#{closing}")
    expect(closed_once).to eq("closed false -1 false nil")
    expect(counter(:evicted_slow)).to eq(before + 1)
    stream.drop
  end

  it "S-31 a direct subscriber that does not read is evicted, and the others get everything" do
    slow = websocket("def on_open(client) = (client.subscribe('flood'); client.write('open'))\n#{closing}")
    good = websocket("def on_open(client) = (client.subscribe('flood'); client.write('open'))")
    expect([slow.receive, good.receive]).to eq(%w[open open])
    80.times do |round|
      get("5.times { |i| Brokerd.publish('flood', \"\#{#{round * 5} + i} \#{'x' * 20_000}\") }; [200, {}, []]")
      expect(Array.new(5) { |n| good.receive.to_i - n }).to eq([round * 5] * 5)
    end
    expect(closed_once).to eq("closed false -1 false nil")
  end
end

RSpec.describe "Clients that stand still" do
  lab("#{Support::Lab::CLASSES}\nuse Brokerd::Middleware, stall_timeout: 1, max_pending: 1 << 30\nrun ->(env) { Lab.new(env).call }")

  closing = "def on_close(client) = report(\"closed \#{client.open?} \#{client.pending}\")"

  def stalled
    get("[200, {}, [Brokerd.stats[:evicted_stalled].to_s]]").body.to_i
  end

  def closed_once
    wait_for_report(/closed/, 15).tap { expect(reports.grep(/closed/).size).to eq(1) }
  end

  it "S-31 one that takes nothing of what waits for it is ended after stall_timeout, however much may wait" do
    before = stalled
    websocket("def on_open(client) = 300.times { client.write('x' * 100_000) }\n#{closing}")
    expect(closed_once).to eq("closed false -1")
    expect(stalled).to eq(before + 1)
  end

  it "S-31 one that does not go on with its message is ended with 1008; one that says nothing is not" do
    before = stalled
    quiet = websocket("def on_message(client, data) = client.write(data)")
    begun = websocket("def on_message(client, data) = nil\n#{closing}")
    begun.socket.write("\x81\x85".b)
    opcode, payload = begun.receive_frame
    expect([opcode, payload.unpack1("n")]).to eq([Support::WebSocket::CLOSE, 1008])
    expect(closed_once).to eq("closed false -1")
    expect(stalled).to eq(before + 1)
    quiet.text("still here")
    expect(quiet.receive).to eq("still here")
  end
end
