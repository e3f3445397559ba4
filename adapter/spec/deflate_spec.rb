# frozen_string_literal: true

require "spec_helper"
require "zlib"

# permessage-deflate through a real server: RFC 7692.
RSpec.describe "permessage-deflate" do
  offer = { "Sec-WebSocket-Extensions" => "permessage-deflate; client_max_window_bits" }
  echo = "def on_message(client, data) = client.write(\"\#{data.encoding} \#{data.bytesize} \#{data[0, 20]}\")"
  listen = "def on_open(client) = (client.subscribe('news'); client.write('ready'))\ndef on_message(client, data) = client.write('pong')"

  # What a peer compresses its messages with; the same object keeps the context.
  def compressor(bits = 15)
    Zlib::Deflate.new(9, -bits)
  end

  def compress(text, with = compressor)
    with.deflate(text, Zlib::SYNC_FLUSH).delete_suffix("\x00\x00\xff\xff".b)
  end

  def inflate(payload, bits = 15)
    Zlib::Inflate.new(-bits).tap { |z| z << payload << "\x00\x00\xff\xff".b }.flush_next_out
  end

  # [compressed?, opcode, payload] of the next frame.
  def frame(client)
    opcode, payload = client.receive_frame
    [opcode & 0x40 != 0, opcode & 0x0f, payload]
  end

  describe "with deflate: true" do
    lab("#{Support::Lab::CLASSES}\nuse Brokerd::Middleware, deflate: true\nrun ->(env) { Lab.new(env).call }")

    def publish(channel, text)
      get("Brokerd.publish(#{channel.inspect}, #{text.inspect}); [200, {}, []]")
    end

    it "RFC 7692 5.1 and 7.1: answers what it can do, and nothing to an offer that it cannot take or that is not there" do
      {
        "permessage-deflate" => "permessage-deflate; server_no_context_takeover",
        "permessage-deflate; client_max_window_bits" => "permessage-deflate; server_no_context_takeover",
        "x-other, permessage-deflate; client_no_context_takeover" => "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        "permessage-deflate; server_max_window_bits=9; client_max_window_bits=10" =>
          "permessage-deflate; server_no_context_takeover; server_max_window_bits=9; client_max_window_bits=10",
        "permessage-deflate; server_max_window_bits=8" => nil,
        "permessage-deflate; unknown" => nil,
        nil => nil
      }.each do |extensions, answer|
        client = websocket(echo, headers: { "Sec-WebSocket-Extensions" => extensions })
        expect(client).to be_upgraded
        expect(client.headers["sec-websocket-extensions"]).to eq([answer].compact), extensions.inspect
      end
    end

    it "RFC 7692 7.2: reads compressed messages, with and without context takeover, fragmented, empty and plain" do
      client = websocket(echo, headers: offer)
      context = compressor
      3.times do
        client.send_frame(1, compress("grüße " * 100, context), rsv: 4)
        expect(client.receive).to eq("UTF-8 800 #{('grüße ' * 4)[0, 20]}")
      end
      whole = compress("fragments", context)
      client.send_frame(2, whole[0, 3], rsv: 4, fin: false)
      client.send_frame(9, "between")
      client.send_frame(0, whole[3..])
      expect(client.receive).to eq("ASCII-8BIT 9 fragments")
      client.send_frame(1, "\0", rsv: 4) # 7.2.3.6: an empty message
      expect(client.receive).to eq("UTF-8 0 ")
      client.text("plain")
      expect(client.receive).to eq("UTF-8 5 plain")
      client = websocket(echo, headers: { "Sec-WebSocket-Extensions" => "permessage-deflate; client_no_context_takeover" })
      2.times do
        client.send_frame(1, compress("alone " * 50), rsv: 4)
        expect(client.receive).to eq("UTF-8 300 alone alone alone al")
      end
    end

    it "RFC 7692 7.1.1.2: after client_no_context_takeover a message cannot refer to an earlier one: 1007" do
      client = websocket(echo, headers: { "Sec-WebSocket-Extensions" => "permessage-deflate; client_no_context_takeover" })
      context = compressor
      text = Random.new(1).bytes(2000)
      client.send_frame(2, compress(text, context), rsv: 4)
      expect(client.receive).to start_with("ASCII-8BIT 2000")
      client.send_frame(2, compress(text, context), rsv: 4)
      expect(client.close_code).to eq(1007)
    end

    it "RFC 7692 7.1.2.2: the window that was agreed is the one it inflates with" do
      far = Random.new(2).bytes(1000)
      text = far + Random.new(3).bytes(3000) + far
      { 15 => "ASCII-8BIT 5000", 9 => nil }.each do |bits, answer|
        client = websocket(echo, headers: { "Sec-WebSocket-Extensions" => "permessage-deflate; client_max_window_bits=#{bits}" })
        whole = compress(text) # its last bytes refer 4,000 bytes back
        client.send_frame(2, whole[0...-30], rsv: 4, fin: false)
        client.send_frame(0, whole[-30..])
        answer ? expect(client.receive).to(start_with(answer)) : expect(client.close_code).to(eq(1007))
      end
      client = websocket(echo, headers: { "Sec-WebSocket-Extensions" => "permessage-deflate; client_max_window_bits=9" })
      client.send_frame(2, compress(text, compressor(9)), rsv: 4)
      expect(client.receive).to start_with("ASCII-8BIT 5000")
    end

    it "a broadcast is compressed once: the same bytes for all who agreed, plain for the others and for smaller windows" do
      agreed = Array.new(5) { websocket(listen, headers: offer) }
      narrow = websocket(listen, headers: { "Sec-WebSocket-Extensions" => "permessage-deflate; server_max_window_bits=9" })
      plain = websocket(listen)
      stream = event_stream(listen)
      all = agreed + [narrow, plain]
      all.each { |client| client.rsv = true }
      expect(all.map { |client| client.receive } + [stream.receive]).to eq(["ready"] * 8)
      texts = ["a line of news, " * 200, "another line, " * 300]
      texts.each { |text| publish("news", text) }
      texts.each do |text|
        frames = agreed.map { |client| frame(client) }
        expect(frames.uniq.size).to eq(1)
        compressed, opcode, payload = frames.first
        expect([compressed, opcode]).to eq([true, 1])
        expect(payload.bytesize).to be < text.bytesize / 10
        expect(inflate(payload)).to eq(text)
        expect([frame(narrow), frame(plain)]).to eq([[false, 1, text]] * 2)
        expect(stream.receive).to eq(text)
      end
    end

    it "RFC 7692 6: what does not get smaller goes out plain, and control frames always" do
      client = websocket(listen, headers: offer)
      client.rsv = true
      expect(client.receive).to eq("ready")
      publish("news", "tiny")
      expect(frame(client)).to eq([false, 1, "tiny"])
      client.send_frame(9, "x" * 100)
      expect(frame(client)).to eq([false, 10, "x" * 100])
    end

    it "RFC 7692 6: a compressed control frame, or RSV1 on a later fragment, is closed with 1002" do
      [[[9, compress("x"), { rsv: 4 }]], [[1, compress("ab"), { rsv: 4, fin: false }], [0, "", { rsv: 4 }]]].each do |frames|
        client = websocket(echo, headers: offer)
        frames.each { |opcode, payload, options| client.send_frame(opcode, payload, **options) }
        expect(client.close_code).to eq(1002)
      end
    end

    it "limits count inflated bytes: a compression bomb is closed with 1009, and costs no memory" do
      websocket(echo).tap { |c| c.text("warm") }.receive
      before = resident(lab.pid)
      bomb = compress("\0" * (64 << 20))
      expect(bomb.bytesize).to be < 100_000
      10.times do
        client = websocket(echo, headers: offer)
        client.send_frame(2, bomb, rsv: 4)
        expect(client.close_code).to eq(1009)
      end
      expect(resident(lab.pid) - before).to be < 32 << 10 # KiB
    end

    it "what is no DEFLATE stream, and text that inflates to bad UTF-8, is closed with 1007" do
      ["\x07", compress("\xC3\x28")].each do |payload|
        client = websocket(echo, headers: offer)
        client.send_frame(1, payload, rsv: 4)
        expect(client.close_code).to eq(1007)
      end
    end
  end

  describe "by default" do
    lab

    it "RFC 6455 9.1: is not answered to an offer, and a frame with RSV1 is closed with 1002" do
      client = websocket(echo, headers: offer)
      expect(client).to be_upgraded
      expect(client.headers).not_to have_key("sec-websocket-extensions")
      client.send_frame(1, compress("text"), rsv: 4)
      expect(client.close_code).to eq(1002)
    end
  end

  # KiB of a process.
  def resident(pid)
    File.read("/proc/#{pid}/status")[/VmRSS:\s+(\d+)/, 1].to_i
  end
end
