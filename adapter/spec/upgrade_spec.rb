# frozen_string_literal: true

require "spec_helper"

RSpec.describe "Upgrade" do
  lab

  let(:seen) { '[200, { "content-type" => "text/plain" }, [env.key?("rack.upgrade?").inspect + " " + env["rack.upgrade?"].inspect]]' }
  let(:handshake) do
    { "Upgrade" => "websocket", "Connection" => "Upgrade", "Sec-WebSocket-Version" => "13",
      "Sec-WebSocket-Key" => SecureRandom.base64(16) }
  end

  it "S-1 S-16 says :websocket for a WebSocket request, before the application runs" do
    expect(get(seen, headers: handshake).body).to eq("true :websocket")
    expect(get(seen, headers: handshake.merge("Upgrade" => "foo, WebSocket", "Connection" => "keep-alive, uPGRADE")).body)
      .to eq("true :websocket")
  end

  it "S-2 says :sse for an EventSource request" do
    ["text/event-stream", "TEXT/Event-Stream", "text/html, text/event-stream;q=0.1", "text/event-stream ; charset=utf-8"].each do |accept|
      expect(get(seen, headers: { "Accept" => accept }).body).to eq("true :sse"), accept
    end
  end

  it "S-3 says nil for any other request, with the key present" do
    expect(get(seen).body).to eq("true nil")
    expect(get(seen, headers: { "Accept" => "text/event-stream;q=0, */*" }).body).to eq("true nil")
    expect(get(seen, method: "POST", headers: handshake.merge("Content-Length" => "0")).body).to eq("true nil")
    expect(get(seen, method: "POST", headers: { "Accept" => "text/event-stream", "Content-Length" => "0" }).body).to eq("true nil")
    expect(get(seen, headers: handshake.merge("Connection" => "keep-alive")).body).to eq("true nil")
    expect(get(seen, method: "HEAD", headers: handshake).status).to eq(200)
  end

  it "S-3 answers a broken handshake itself: 426 for the version, 400 for the rest, application not called (RFC 6455 4.2.2, 4.4)" do
    app = "report('called'); [200, {}, []]"
    wrong = get(app, headers: handshake.merge("Sec-WebSocket-Version" => "12"))
    expect(wrong.status).to eq(426)
    expect(wrong.headers["sec-websocket-version"]).to eq(["13"])
    [nil, "short", "!" * 24, SecureRandom.base64(15), SecureRandom.base64(17)].each do |key|
      expect(get(app, headers: handshake.merge("Sec-WebSocket-Key" => key)).status).to eq(400), key.inspect
    end
    expect(get(app, headers: handshake, version: "1.0").status).to eq(400)
    expect(reports).to be_empty
  end

  [0, 101, 200, 204, 299].each do |status|
    it "S-4 S-8 upgrades with status #{status}, which becomes 101 or 200" do
      app = "env['rack.upgrade'] = handler { def on_open(client) = client.write('hi') }; [#{status}, {}, []]"
      client = websocket(app: app)
      expect(client).to be_upgraded
      expect(client.receive).to eq("hi")
      stream = event_stream(app: app)
      expect(stream.status).to eq(200)
      expect(stream.headers["content-type"]).to eq(["text/event-stream"])
      expect(stream.receive).to eq("hi")
    end
  end

  [300, 301, 304, 401, 404, 500].each do |status|
    it "S-5 S-12 gives the response itself with status #{status}, and the connection goes on" do
      app = "env['rack.upgrade'] = handler { def on_open(client) = report('opened') }; [#{status}, { 'x-test' => 'yes' }, []]"
      socket = TCPSocket.new("127.0.0.1", lab.port)
      expect(get(app, headers: handshake, socket: socket).status).to eq(status)
      expect(get(app, headers: { "Accept" => "text/event-stream" }, socket: socket).headers["x-test"]).to eq(["yes"])
      expect(get(seen, socket: socket).body).to eq("true nil")
      expect(reports).to be_empty
      socket.close
    end
  end

  it "S-12 takes the object out of env when it is not used, for middleware above" do
    get = { "REQUEST_METHOD" => "GET", "rack.hijack" => -> {}, "HTTP_ACCEPT" => "text/event-stream" }
    { get => 404, get.except("HTTP_ACCEPT") => 200 }.each do |env, status|
      app = Brokerd::Middleware.new(->(seen) { [status, {}, [(seen["rack.upgrade"] = Object.new).to_s]] })
      expect(app.call(env).first).to eq(status)
      expect(env).not_to have_key("rack.upgrade")
    end
  end

  it "RFC 6455 11.3: a key or a version that is sent twice is refused" do
    app = "report('called'); [200, {}, []]"
    %w[Sec-WebSocket-Key Sec-WebSocket-Version].each do |name|
      twice = "#{handshake[name]}\r\n#{name}: #{handshake[name]}"
      expect(get(app, headers: handshake.merge(name => twice)).status).to be_between(400, 426), name
    end
    expect(reports).to be_empty
  end

  it "S-6 never sends the body, nor calls a streaming one" do
    app = <<~RUBY
      env['rack.upgrade'] = handler { def on_open(client) = client.write('first') }
      [200, { 'content-length' => '6', 'content-type' => 'text/plain' }, ['SECRET']]
    RUBY
    client = websocket(app: app)
    expect(client.head).not_to include("SECRET")
    expect(client.receive).to eq("first")
    expect(event_stream(app: app).receive).to eq("first")
    streaming = "env['rack.upgrade'] = handler { def on_open(client) = client.write('first') }; path = @path; " \
                "[200, {}, ->(stream) { File.write(path, 'streamed') }]"
    expect(websocket(app: streaming).receive).to eq("first")
    expect(reports).to be_empty
  end

  it "S-7 closes the body exactly once" do
    app = <<~RUBY
      env['rack.upgrade'] = handler { def on_open(client) = report('open') }
      body = handler do
        def each = report('each')
        def close = report('closed')
      end
      [200, {}, body]
    RUBY
    websocket(app: app)
    event_stream(app: app)
    wait_for("both") { reports.count("open") == 2 && reports.count("closed") == 2 }
    expect(reports).not_to include("each")
  end

  it "S-9 sends the application's headers with the upgrade, in Rack 2 and Rack 3 form" do
    rack2 = "[200, { 'X-Test' => 'one', 'Set-Cookie' => \"a=1\\nb=2\" }, []]"
    rack3 = "[200, { 'x-test' => 'one', 'set-cookie' => ['a=1', 'b=2'] }, []]"
    [rack2, rack3].each do |response|
      app = "env['rack.upgrade'] = handler {}; #{response}"
      client = websocket(app: app)
      expect(client).to be_upgraded
      expect(client.headers["x-test"]).to eq(["one"])
      expect(client.headers["set-cookie"]).to eq(%w[a=1 b=2])
      expect(event_stream(app: app).headers["set-cookie"]).to eq(%w[a=1 b=2])
    end
  end

  it "S-9 is not corrupted by headers of the application that are the connection's or the body's" do
    app = <<~RUBY
      env['rack.upgrade'] = handler { def on_open(client) = client.write('whole') }
      [200, { 'content-length' => '5', 'content-type' => 'text/html', 'connection' => 'close', 'transfer-encoding' => 'chunked',
              'upgrade' => 'h2c', 'sec-websocket-accept' => 'no', "bad name" => 'x', 'x-bad' => "a\\rb: c", 'content-encoding' => 'gzip' }, ['hello']]
    RUBY
    client = websocket(app: app)
    expect(client).to be_upgraded
    expect(client.headers.keys).to contain_exactly("upgrade", "connection", "sec-websocket-accept")
    expect(client.headers["upgrade"]).to eq(["websocket"])
    expect(client.receive).to eq("whole")
    stream = event_stream(app: app)
    expect(stream.headers.keys).to contain_exactly("content-type", "cache-control", "x-accel-buffering", "connection")
    expect(stream.receive).to eq("whole")
  end

  it "S-9 lets the application choose a subprotocol that was offered, and no other (RFC 6455 4.2.2)" do
    choose = ->(name) { "env['rack.upgrade'] = handler {}; [200, { 'Sec-WebSocket-Protocol' => '#{name}' }, []]" }
    offer = { "Sec-WebSocket-Protocol" => "chat.v1, chat.v2" }
    expect(websocket(app: choose["chat.v2"], headers: offer).headers["sec-websocket-protocol"]).to eq(["chat.v2"])
    expect(websocket(app: choose["chat.v3"], headers: offer).headers).not_to have_key("sec-websocket-protocol")
    expect(websocket(app: choose["chat.v2"]).headers).not_to have_key("sec-websocket-protocol")
  end

  it "S-10 S-11 ignores a callback object when the request is not upgradeable" do
    app = "env['rack.upgrade'] = handler { def on_open(client) = report('opened') }; [200, { 'content-type' => 'text/plain' }, ['plain']]"
    expect(get(app).body).to eq("plain")
    expect(reports).to be_empty
  end

  it "S-13 takes any object with any or none of the callbacks" do
    objects = ["Object.new", "Object.new.freeze", "Class.new", "Module.new", "handler { def on_close(client) = report('closed') }",
               "Class.new(BasicObject) { def method_missing(name, *) = nil }.new",
               "Class.new(BasicObject).new", "handler { private def on_open(client) = nil }", "42", ":symbol", "'string'", "{}"]
    objects.each do |object|
      client = websocket(app: "env['rack.upgrade'] = #{object}; [200, {}, []]")
      expect(client).to be_upgraded, object
      client.text("hello")
      client.close
      expect(client.close_code).to eq(1000), object
    end
    wait_for_report("closed")
  end

  it "S-14 does not upgrade with nil or false in rack.upgrade" do
    %w[nil false].each do |nothing|
      response = get("env['rack.upgrade'] = #{nothing}; [200, { 'content-type' => 'text/plain' }, ['plain']]", headers: handshake)
      expect(response.status).to eq(200)
      expect(response.body).to eq("plain")
    end
  end

  it "a first frame sent with the handshake is not lost, split anywhere" do
    echo = "def on_message(client, data) = client.write(data)"
    first = Support::WebSocket.frame(1, "early")
    20.times { |n| expect(websocket(echo, extra: first.byteslice(0, n)).tap { |c| c.socket.write(first.byteslice(n..)) }.receive).to eq("early") }
    expect(websocket(echo, extra: first).receive).to eq("early")
  end

  it "keeps to itself where the server has native support (rack.upgrade? is there)" do
    app = Brokerd::Middleware.new(->(env) { [200, {}, [env["rack.upgrade?"].inspect]] })
    expect(app.call("rack.upgrade?" => :websocket)).to eq([200, {}, [":websocket"]])
  end

  it "a server without full hijack gets nil and one warning" do
    log = StringIO.new
    logger = Brokerd.config.logger
    Brokerd.config.logger = Logger.new(log)
    app = Brokerd::Middleware.new(->(env) { [200, {}, [env["rack.upgrade?"].inspect]] })
    env = { "REQUEST_METHOD" => "GET", "HTTP_ACCEPT" => "text/event-stream" }
    2.times { expect(app.call(env.dup)[2]).to eq(["nil"]) }
    expect(log.string.lines.grep(/full hijack/).size).to eq(1)
  ensure
    Brokerd.config.logger = logger
  end
end
