# frozen_string_literal: true

require "spec_helper"

RSpec.describe "Shutdown" do
  app = <<~RUBY
    #{Support::Lab::CLASSES}
    use Brokerd::Middleware
    class Farewell
      def on_open(client) = client.write("open")
      def on_shutdown(client) = (client.write("farewell"); report("shutdown \#{client.open?}"))
      def on_close(client) = report("close \#{client.open?}")
    end
    run(lambda do |env|
      env["rack.upgrade"] = Farewell.new if env["rack.upgrade?"]
      [200, {}, []]
    end)
  RUBY

  # Everyone hears the farewell, then the end; each callback ran once.
  def expect_farewell(server, clients, streams)
    clients.each { |client| expect(client.receive(20)).to eq("farewell") }
    streams.each { |stream| expect(stream.receive(20)).to eq("farewell") }
    clients.each { |client| expect(client.close_code).to eq(1001) }
    streams.each { |stream| expect(stream.receive).to be_nil }
    clients.each(&:close)
    (clients + streams).each(&:drop)
    count = clients.size + streams.size
    server.wait_for("on_close") { server.reports.count("close false") == count }
    expect(server.reports.count("shutdown true")).to eq(count)
    expect(server.reports.size).to eq(2 * count)
  end

  def opened(server)
    clients = Array.new(4) { websocket(server: server) }
    streams = Array.new(4) { event_stream(server: server) }
    (clients + streams).each { |client| expect(client.receive).to eq("open") }
    [clients, streams]
  end

  endings = {
    "Puma, TERM" => [{}, "TERM"], "Puma, INT" => [{}, "INT"], "Puma cluster, TERM" => [{ workers: 2 }, "TERM"],
    "Puma cluster with preload_app!, TERM" => [{ workers: 2, preload: true }, "TERM"],
    "Puma, USR2 (restart by exec)" => [{}, "USR2"],
    "Unicorn, QUIT" => [{ kind: :unicorn }, "QUIT"],
    "Pitchfork, QUIT" => [{ kind: :pitchfork }, "QUIT"],
    "Falcon, INT" => [{ kind: :falcon }, "INT"]
  }
  endings.each do |name, (options, signal)|
    next unless Support::Server.installed?(options.fetch(:kind, :puma))

    it "S-30 S-31 on_shutdown, what it writes, close 1001, on_close: #{name}" do
      server = start_server(app, **options)
      clients, streams = opened(server)
      server.signal(signal)
      expect_farewell(server, clients, streams)
      server.wait(20) unless signal == "USR2"
    end
  end

  it "S-30 a client that answers nothing does not hold up the end, past shutdown_timeout" do
    server = start_server(app, env: { "BROKERD_SHUTDOWN_TIMEOUT" => "1" })
    opened(server)
    started = now
    server.signal("TERM")
    server.wait(15)
    expect(now - started).to be < 10
  end

  it "a callback that never returns does not hold up the end" do
    server = start_server("#{Support::Lab::CLASSES}\nuse Brokerd::Middleware\nrun ->(env) { Lab.new(env).call }", env: { "BROKERD_SHUTDOWN_TIMEOUT" => "1" })
    client = websocket("def on_message(client, data) = (report('in'); sleep)", server: server)
    client.text("x")
    wait_for_report("in")
    server.signal("TERM")
    server.wait(20)
  end
end
