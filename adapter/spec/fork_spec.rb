# frozen_string_literal: true

require "spec_helper"

RSpec.describe "Fork" do
  it "what is registered before the fork is the workers' business: subscriptions, engines, default" do
    app = <<~RUBY
      #{Support::Lab::CLASSES}
      class Told < Brokerd::PubSub::Engine
        def subscribe(to, *) = report("engine \#{Process.pid} \#{to}")
      end
      Brokerd::PubSub.attach(Told.new)
      $recorder = Class.new(Brokerd::PubSub::Engine) { def publish(channel, message) = report("default \#{Process.pid} \#{message}") }.new
      Brokerd::PubSub.default = $recorder
      Brokerd.subscribe("global") { |_, message| report("global \#{Process.pid} \#{message}") }
      report("master \#{Process.pid} \#{Brokerd::Runtime.running?}")
      use Brokerd::Middleware
      run ->(env) { Brokerd.publish("any", "x"); [200, { "content-type" => "text/plain" }, [Process.pid.to_s]] }
    RUBY
    server = start_server(app, workers: 2, config: "preload_app!\n#{boot}")
    pids = server.wait_for("both workers") { server.reports.grep(/engine/).map { |line| line.split[1] }.uniq.then { |all| all if all.size == 2 } }
    master = server.report(/master/).split
    expect(master).to eq(["master", server.pid.to_s, "false"])
    server.wait_for("both subscriptions") do
      broker.publish("global", "hello")
      (pids - server.reports.grep(/global .* hello/).map { |line| line.split[1] }).empty?
    end
    expect(server.reports.grep(/global/).map { |line| line.split[1] }.uniq).to match_array(pids)
    get(nil, server: server)
    expect(pids).to include(server.report(/default/).split[1])
  end

  # Puma's own hook, by the name that this version knows.
  def boot
    "respond_to?(:before_worker_boot) ? before_worker_boot { Brokerd.start } : on_worker_boot { Brokerd.start }"
  end

  it "a worker takes them up with its first request at the latest" do
    app = <<~RUBY
      Brokerd.subscribe("global") { |_, message| report(message) }
      use Brokerd::Middleware
      run ->(env) { [200, { "content-type" => "text/plain" }, [Brokerd::Runtime.running?.to_s]] }
    RUBY
    server = start_server(app, workers: 1, preload: true)
    expect(get(nil, server: server).body).to eq("true")
    wait_for("it") do
      broker.publish("global", "hello")
      server.reports.include?("hello")
    end
  end

  it "a master that publishes does not disturb its workers, nor they it" do
    app = <<~RUBY
      Brokerd.publish("from", "master")
      use Brokerd::Middleware
      HANDLER = Object.new
      def HANDLER.on_open(client) = client.subscribe("from")
      def HANDLER.on_message(client, data) = client.write(data)
      run ->(env) { env["rack.upgrade"] = HANDLER; [200, { "content-type" => "text/plain" }, []] }
    RUBY
    server = start_server(app, workers: 2, preload: true)
    clients = Array.new(6) { websocket(nil, server: server) }
    clients.each do |client|
      client.text("echo")
      expect(client.receive).to eq("echo")
    end
    wait_for("delivery") do
      broker.publish("from", "x")
      clients.all? { |client| client.receive(0.5) == "x" }
    end
  end

  it "a child of fork starts anew, its parent goes on, and open clients stay the parent's" do
    app = "#{Support::Lab::CLASSES}\nuse Brokerd::Middleware\nrun ->(env) { Lab.new(env).call }"
    server = start_server(app)
    client = websocket(<<~RUBY, server: server)
      def on_message(client, data)
        child = fork do
          report([client.open?, client.pending, client.write('from the child'), client.subscribe('x'), Brokerd.publish('fork', 'x')].inspect)
          exit
        end
        Process.wait(child)
        client.write("parent \#{$?.success?}")
      end
    RUBY
    3.times do
      client.text("fork")
      expect(client.receive(20)).to eq("parent true")
    end
    expect(reports).to eq(["[false, -1, false, nil, true]"] * 3)
  end

  it "a connection closed by the parent is closed for the peer, though a child still has copies" do
    app = "#{Support::Lab::CLASSES}\nuse Brokerd::Middleware\nrun ->(env) { Lab.new(env).call }"
    server = start_server(app)
    client = websocket(<<~RUBY, server: server)
      def on_message(client, data)
        child = fork { sleep 20 }
        report(child)
        client.close
      end
    RUBY
    client.text("go")
    expect(client.close_code).to eq(1000)
    client.close
    expect(client.receive_frame(5)).to be_nil
    Process.kill("KILL", wait_for_report(/\d+/).to_i)
  end
end
