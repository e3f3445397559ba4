# frozen_string_literal: true

require "spec_helper"

RSpec.describe "Delivery across processes" do
  let(:app) do
    <<~RUBY
      #{Support::Lab::CLASSES}
      use Brokerd::Middleware
      class Member
        def on_open(client)
          client.subscribe(:news)
          client.write(Process.pid.to_s)
        end

        def on_message(client, data)
          data.start_with?("local ") ? client.publish(:news, data, false) : client.publish(:news, data)
        end
      end
      MEMBER = Member.new
      run(lambda do |env|
        return Lab.new(env).call if env["HTTP_X_LAB"]

        env["rack.upgrade"] = MEMBER if env["rack.upgrade?"]
        [200, { "content-type" => "text/plain" }, [Process.pid.to_s]]
      end)
    RUBY
  end

  # That many clients in each of the server's workers.
  # @return [Hash{String => Array}] the clients by their worker's process id
  def members(server, each, workers: 2, kind: :websocket)
    found = Hash.new { |h, k| h[k] = [] }
    until found.size == workers && found.values.all? { |clients| clients.size == each }
      client = public_send(kind, nil, server: server)
      pid = client.receive
      found[pid].size < each ? found[pid] << client : client.drop
    end
    found
  end

  # Publishes marks until each client has seen one, so that all subscriptions are in force; then one more,
  # up to which everything is read.
  def settle(clients)
    waiting = clients.dup
    wait_for("all subscriptions") do
      broker.publish("news", "mark")
      waiting.reject! { |client| seen?(client) }
      waiting.empty?
    end
    broker.publish("news", "last mark")
    clients.each { |client| nil until client.receive == "last mark" }
  end

  def seen?(client)
    client.receive(0.2)
  rescue RuntimeError
    false
  end

  shared_examples "a server of two workers" do
    it "P-21 P-22 brokerctl, browsers and Ruby reach every client of both workers, once, in one order" do
      server = start_server(app, workers: 2, **options)
      sockets = members(server, 3)
      streams = members(server, 3, kind: :event_stream)
      all = sockets.values.flatten + streams.values.flatten
      settle(all)
      broker.publish("news", "from brokerctl")
      sockets.values.first.first.text("from a browser")
      expect(ruby('exit Brokerd.publish("news", "from Ruby")').status).to be_success
      got = all.map { |client| Array.new(3) { client.receive } }
      expect(got.uniq.size).to eq(1)
      expect(got.first).to contain_exactly("from brokerctl", "from a browser", "from Ruby")
    end

    it "P-17 publish with false stays in the process" do
      server = start_server(app, workers: 2, **options)
      sockets = members(server, 2)
      settle(sockets.values.flatten)
      here, there = sockets.values
      here.first.text("local news")
      expect(here.map(&:receive)).to eq(["local news"] * 2)
      broker.publish("news", "for all")
      expect((here + there).map(&:receive)).to eq(["for all"] * 4)
    end
  end

  context "with preload_app!" do
    let(:options) { { preload: true } }

    it_behaves_like "a server of two workers"
  end

  context "without preload_app!" do
    let(:options) { { config: "preload_app! false" } }

    it_behaves_like "a server of two workers"
  end

  it "100 WebSockets and 100 event streams in each of two workers get 1,000 + 1,000 messages once, in the same order" do
    server = start_server(app, workers: 2, preload: true)
    sockets = members(server, 100)
    streams = members(server, 100, kind: :event_stream)
    all = sockets.values.flatten + streams.values.flatten
    settle(all)
    lines = Thread.new { broker.ctl("publish", "--lines", "news", input: (0...1000).map { |n| "c#{n}\n" }.join) }
    browser = sockets.values.first.first
    writer = Thread.new { 1000.times { |n| browser.text("b#{n}") } }
    got = Support::Crowd.new(all).receive(2000)
    expect(lines.value.last).to be_success
    writer.join
    expect(got.uniq.size).to eq(1)
    expect(got.first.grep(/\Ac/)).to eq((0...1000).map { |n| "c#{n}" })
    expect(got.first.grep(/\Ab/)).to eq((0...1000).map { |n| "b#{n}" })
  end

  it "clients stay connected while the broker is ended and started again, and publishing works within a second" do
    server = start_server(app, workers: 2, preload: true)
    sockets = members(server, 2).values
    all = sockets.flatten
    settle(all)
    broker.stop
    sockets.first.first.text("local while away")
    expect(sockets.first.map(&:receive)).to eq(["local while away"] * 2)
    sockets.first.first.text("kept while away")
    broker.start
    started = now
    expect(all.map(&:receive)).to eq(["kept while away"] * 4)
    broker.publish("news", "works again")
    expect(all.map(&:receive)).to eq(["works again"] * 4)
    expect(now - started).to be < 2
  end

  it "a process that was stopped catches up at its browsers' pace: they are not closed as too slow" do
    server = start_server(app)
    clients = Array.new(3) { websocket(server: server) }
    clients.each(&:receive)
    settle(clients)
    server.signal("STOP")
    lines = Array.new(200_000) { |n| "m#{n}\n" }
    output, status = broker.ctl("publish", "--lines", "news", input: lines.join)
    expect(status).to be_success, output
    server.signal("CONT")
    got = Support::Crowd.new(clients).receive(lines.size)
    expect(got.uniq).to eq([lines.map(&:chomp)])
  end

  it "the time for which a process was stopped does not count as its browsers' silence" do
    server = start_server(app, env: { "BROKERD_PING" => "1", "BROKERD_PONG_TIMEOUT" => "3" })
    client, other = Array.new(2) { websocket(server: server) }.each(&:receive)
    expect(client.receive_frame.first).to eq(Support::WebSocket::PING)
    server.signal("STOP")
    sleep 6
    server.signal("CONT")
    other.text("local tick")
    expect([client, other].map(&:receive)).to eq(["local tick"] * 2) # its clock has ticked meanwhile
    client.send_frame(Support::WebSocket::PONG, "")
    settle([client])
  end

  it "P-18 publish gives true while the broker is away, until the buffer is full, and never raises" do
    url = "ipc://#{folder}/nobody.sock"
    program = ruby(<<~'RUBY', url: url, env: { "BROKERD_SHUTDOWN_TIMEOUT" => "0" })
      message = "x" * 1_000_000
      results = Array.new(40) { Brokerd.publish("a", message) }
      puts results.tally.inspect, results.take_while(&:itself).size.between?(14, 17)
    RUBY
    expect(program.output).to match(/\{true=>1\d, false=>2\d\}\ntrue/)
  end

  describe "a short-lived process" do
    it "delivers before it ends" do
      listener = broker_listener
      expect(ruby('Brokerd.publish("news", "from a script")').status).to be_success
      expect(listener.receive).to eq("from a script")
    end

    it "says on stderr when the broker has not answered, after shutdown_timeout" do
      # What is registered last runs first; the gem's own is in the middle.
      program = ruby(<<~RUBY, url: "ipc://#{folder}/nobody.sock", env: { "BROKERD_SHUTDOWN_TIMEOUT" => "1" })
        now = -> { Process.clock_gettime(Process::CLOCK_MONOTONIC) }
        at_exit { $stdout.syswrite(now.call - $began) }
        Brokerd.publish("a", "b")
        at_exit { $began = now.call }
      RUBY
      expect(program.errors).to include("1 published messages were not answered by the broker within 1 s")
      expect(program.output.to_f).to be_between(0.99, 4)
      expect(program.status).to be_success
    end

    it "ends at once when it is told twice, while it waits for the broker" do
      child = start_ruby('Brokerd.publish("a", "b"); at_exit { $stdout.syswrite("waiting") }; $stdout.syswrite("ready"); sleep',
                         url: "ipc://#{folder}/nobody.sock", env: { "BROKERD_SHUTDOWN_TIMEOUT" => "60" })
      wait_for("the program") { child.output.include?("ready") }
      child.signal("TERM")
      wait_for("its end to begin") { child.output.include?("waiting") }
      child.signal("TERM")
      expect(child.wait(5)).to be_signaled
    end

    it "publishes in a trap handler, even as its first use" do
      listener = broker_listener
      child = start_ruby('trap("USR1") { Brokerd.publish("news", "from a trap"); exit }; $stdout.write("ready"); $stdout.flush; sleep')
      wait_for("the program") { child.output.include?("ready") }
      child.signal("USR1")
      expect(listener.receive).to eq("from a trap")
      expect(child.wait).to be_success
    end

    def broker_listener
      @single = start_server(app)
      client = websocket(server: @single)
      client.receive
      settle([client])
      client
    end
  end
end
