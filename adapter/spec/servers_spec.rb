# frozen_string_literal: true

require "spec_helper"

RSpec.describe "Servers" do
  app = <<~RUBY
    #{Support::Lab::CLASSES}
    use Brokerd::Middleware
    run ->(env) { Lab.new(env).call }
  RUBY

  kinds = { "Puma" => {}, "Puma on a unix socket" => { bind: true }, "Puma cluster" => { workers: 2 }, "Unicorn" => { kind: :unicorn },
            "Unicorn with preload_app" => { kind: :unicorn, preload: true }, "Pitchfork" => { kind: :pitchfork }, "Falcon" => { kind: :falcon } }

  kinds.select { |_, options| Support::Server.installed?(options.fetch(:kind, :puma)) }.each do |name, options|
    describe name do
      lab(app, **options)

      let(:echo) { "def on_message(client, data) = client.write(data)" }

      it "S-1 S-2 S-20 S-22 echoes over WebSocket, streams over SSE, and serves plain requests beside them" do
        clients = Array.new(5) { websocket(echo) }
        clients.each { |client| client.text("hello") }
        expect(clients.map(&:receive)).to eq(["hello"] * 5)
        stream = event_stream("def on_open(client) = client.write('event')")
        expect(stream.receive).to eq("event")
        expect(get.body).to eq("lab")
      end

      it "S-21 loses nothing that came with the handshake: 20 of 20" do
        frames = Support::WebSocket.frame(1, "first") + Support::WebSocket.frame(1, "x" * 3000)
        20.times do
          client = websocket(echo, extra: frames)
          expect([client.receive, client.receive]).to eq(["first", "x" * 3000])
          client.drop
        end
      end

      it "P-7 P-21 receives what brokerctl publishes" do
        client = websocket("def on_open(client) = (client.subscribe('x'); client.write('open'))")
        expect(client.receive).to eq("open")
        wait_for("it") do
          broker.publish("x", "news")
          client.receive(0.3) == "news"
        rescue RuntimeError
          nil
        end
      end

      it "S-31 notices a client that went away, and idles without burning the processor" do
        client = websocket("def on_open(client) = client.write('open')\ndef on_close(client) = report('closed')")
        client.receive
        used = cpu(lab)
        IO.select(nil, nil, nil, 0.5)
        expect(cpu(lab) - used).to be < 0.2
        client.drop
        wait_for_report("closed")
        expect(get.body).to eq("lab")
      end

      it "S-5 gives other responses as they are" do
        refusal = "env['rack.upgrade'] = handler { def on_open(client) = report('opened') }; [403, { 'content-type' => 'text/plain' }, ['no']]"
        response = get(refusal, headers: { "Accept" => "text/event-stream" })
        expect([response.status, response.body]).to eq([403, "no"])
      end
    end
  end

  # Seconds of processor time of a server and its workers.
  def cpu(server)
    family = [server.pid]
    family.each { |pid| family.concat(File.read("/proc/#{pid}/task/#{pid}/children").split.map(&:to_i)) }
    family.sum { |pid| File.read("/proc/#{pid}/stat").split.values_at(13, 14).sum(&:to_i) } / 100.0
  end

  describe "middleware around it (S-15)" do
    above = ["Rack::CommonLogger", "Rack::Lint", "Rack::ContentLength", "Rack::ETag", "Rack::Deflater", "Rack::ConditionalGet", "Rack::Runtime"]
    above.each do |middleware|
      { "above" => "use #{middleware}\nuse Brokerd::Middleware", "below" => "use Brokerd::Middleware\nuse #{middleware}" }.each do |place, lines|
        it "S-15 works with #{middleware} #{place}" do
          requires = "require 'rack'\nrequire 'rack/lint'\n"
          server = start_server("#{requires}#{Support::Lab::CLASSES}\n#{lines}\nrun ->(env) { Lab.new(env).call }")
          headers = { "Accept-Encoding" => "gzip" }
          client = websocket("def on_message(client, data) = client.write(data)", server: server, headers: headers)
          client.text("hello")
          expect(client.receive).to eq("hello")
          expect(event_stream("def on_open(client) = client.write('event')", server: server, headers: headers).receive).to eq("event")
        end
      end
    end
  end

  it "TLS that the server itself ends is refused with one clear line" do
    server = start_server(app, arguments: ["-b", "ssl://127.0.0.1:#{port = Support::Ports.free}?key=#{key_file}&cert=#{cert_file}"])
    context = OpenSSL::SSL::SSLContext.new
    context.verify_mode = OpenSSL::SSL::VERIFY_NONE
    2.times do
      socket = OpenSSL::SSL::SSLSocket.new(TCPSocket.new("127.0.0.1", port), context)
      socket.connect
      code = "[200, { 'content-type' => 'text/plain' }, [env['rack.upgrade?'].inspect]]"
      lines = lab_headers(nil, code).merge("Host" => "x", "Accept" => "text/event-stream", "Connection" => "close").map { |n, v| "#{n}: #{v}\r\n" }.join
      socket.write("GET / HTTP/1.1\r\n#{lines}\r\n")
      expect(socket.read).to end_with("nil")
    end
    expect(server.log.lines.grep(/end TLS in front of it/).size).to eq(1)
  end

  def key
    @key ||= OpenSSL::PKey::RSA.new(2048)
  end

  def key_file
    File.join(folder, "key.pem").tap { |path| File.write(path, key.to_pem) }
  end

  def cert_file
    name = OpenSSL::X509::Name.parse("/CN=127.0.0.1")
    cert = OpenSSL::X509::Certificate.new
    cert.version = 2
    cert.serial = 1
    cert.subject = cert.issuer = name
    cert.public_key = key.public_key
    cert.not_before = Time.now - 60
    cert.not_after = Time.now + 3600
    cert.sign(key, OpenSSL::Digest.new("SHA256"))
    File.join(folder, "cert.pem").tap { |path| File.write(path, cert.to_pem) }
  end
end
