# frozen_string_literal: true

require "spec_helper"

# Forks, threads, exits, the garbage collector and missing descriptors, while messages go by.
RSpec.describe "Hardening" do
  # A process that writes down what comes on the channel "out".
  def collector
    @collector ||= start_ruby(<<~RUBY).tap { |child| wait_for("the collector") { child.output.include?("ready") } }
      $stdout.sync = true
      Brokerd.subscribe("out") { |_, message| puts message }
      Brokerd.subscribe("probe") { |*| puts "ready" }
      loop { Brokerd.publish("probe", "x"); sleep 0.05 }
    RUBY
  end

  def collected(line)
    wait_for("#{line.inspect} in: #{collector.output}") { collector.output.lines(chomp: true).include?(line) }
  end

  def expect_clean_end(child)
    expect(child.status).to be_success, child.errors
    expect(child.errors).not_to match(/\[BUG\]|Segmentation|terminated with exception/)
  end

  describe "the garbage collector" do
    it "compacts all the time while clients come and go" do
      app = "#{Support::Lab::CLASSES}\nThread.new { loop { GC.compact; sleep 0.02 } }\nuse Brokerd::Middleware\nrun ->(env) { Lab.new(env).call }"
      server = start_server(app)
      methods = <<~RUBY
        def on_open(client)
          client.subscribe("gc") { |_, message| client.write("block " + message) }
          client.subscribe("gc.*", match: :redis)
          client.write("subscribed")
        end
        def on_message(client, data) = client.publish(data, "hello")
        def on_close(client) = report("closed")
      RUBY
      3.times do
        clients = Array.new(8) { websocket(methods, server: server) }
        clients.each { |client| expect(client.receive(20)).to eq("subscribed") } # else a publish may be earlier
        clients.each_with_index do |client, n|
          client.text(n.odd? ? "gc" : "gc.x")
        end
        clients.each { |client| expect(Array.new(8) { client.receive(20) }.tally).to eq("block hello" => 4, "hello" => 4) }
        clients.each_with_index { |client, n| n.odd? ? client.close : client.drop }
      end
      wait_for("every on_close", 20) { reports.size == 24 }
    end

    # What the process compiles meanwhile takes seconds (hundreds of allocations, a collection at each): the
    # logger is loaded before, and a client's request comes when no other's callback is at work.
    it "runs at every allocation within callbacks, blocks and writes" do
      server = start_server("require 'logger'\n#{Support::Lab::CLASSES}\nuse Brokerd::Middleware\nrun ->(env) { Lab.new(env).call }")
      methods = <<~RUBY
        def stressed
          GC.stress = true
          yield
        ensure
          GC.stress = false
        end
        def on_open(client)
          stressed { client.subscribe("s") { |channel, message| stressed { client.write(channel + message) } } }
          client.write("subscribed")
        end
        def on_message(client, data) = stressed { client.publish("s", data) }
        def on_close(client) = stressed { report("closed") }
      RUBY
      clients = Array.new(3) { websocket(methods, server: server).tap { |client| expect(client.receive(30)).to eq("subscribed") } }
      clients.each { |client| client.text("x") }
      clients.each do |client|
        expect(Array.new(3) { client.receive(30) }).to all eq("sx")
        client.close
      end
      wait_for("every on_close", 30) { reports.size == 3 }
    end
  end

  it "Thread#kill and exceptions in every callback and block leave the others at work" do
    server = start_server("#{Support::Lab::CLASSES}\nuse Brokerd::Middleware\nrun ->(env) { Lab.new(env).call }")
    ["Thread.current.kill", "raise 'on purpose'", "raise Interrupt", "throw :nowhere", "Thread.current.raise(NoMemoryError)"].each do |act|
      victim = websocket(<<~RUBY, server: server)
        def on_open(client)
          client.subscribe("kill") { |_, message| client.write("got " + message); #{act} }
          #{act}
        end
        def on_message(client, data) = (client.write(data); #{act})
        def on_drained(client) = (#{act})
        def on_close(client) = (report("closed"); #{act})
      RUBY
      victim.text("one")
      expect(victim.receive).to eq("one"), act
      victim.text("two")
      expect(victim.receive).to eq("two"), act
      broker.publish("kill", "message")
      expect(victim.receive).to eq("got message"), act
      victim.close
    end
    wait_for("every on_close") { reports.size == 5 }
    expect(server).to be_alive
    expect(websocket("def on_message(client, data) = client.write(data)", server: server).tap { |c| c.text("on") }.receive).to eq("on")
  end

  describe "the end of a process" do
    it "comes while threads publish, subscribe and unsubscribe" do
      3.times do
        child = ruby(<<~RUBY, limit: 15, env: { "BROKERD_SHUTDOWN_TIMEOUT" => "1" })
          threads = Array.new(4) { |n| Thread.new { loop { Brokerd.publish("noise", "x" * n * 1000) } } }
          threads << Thread.new { loop { Brokerd.subscribe("noise") { |*| nil }.unsubscribe } }
          sleep 0.2
          Brokerd.publish("out", "last") or abort "refused"
        RUBY
        expect([0, 1]).to include(child.status.exitstatus), child.errors # 1: the buffer was full
        expect(child.errors).not_to match(/\\[BUG\\]|Segmentation/)
      end
    end

    it "comes by exit within a callback and by exit!" do
      ["exit", "exit!(0)", "Process.kill('TERM', Process.pid)"].each do |act|
        child = ruby(<<~RUBY)
          Brokerd.subscribe("go") { |*| #{act == 'exit' ? 'Thread.main.raise(SystemExit)' : act} }
          loop { Brokerd.publish("go", "x"); sleep 0.02 }
        RUBY
        expect(child.errors).not_to match(/\[BUG\]|Segmentation/)
      end
    end
  end

  describe "fork" do
    it "twice, as a preloader does: each process publishes what it has to say" do
      collector
      child = ruby(<<~RUBY)
        Brokerd.publish("out", "parent")
        Process.wait(fork do
          Brokerd.publish("out", "child")
          Process.wait(fork { Brokerd.publish("out", "grandchild") })
        end)
        Brokerd.publish("out", "parent again")
      RUBY
      expect_clean_end(child)
      ["parent", "child", "grandchild", "parent again"].each { |line| collected(line) }
    end

    it "of a child that goes on alone, when its parent ended at once (Spring)" do
      collector
      expect_clean_end(ruby(<<~RUBY))
        Brokerd.publish("out", "server")
        fork do
          Process.setsid
          fork { sleep 0.2; Brokerd.publish("out", "application") }
          exit!(0)
        end
      RUBY
      collected("application")
      collected("server")
    end

    it "Process.daemon: before and behind it" do
      collector
      ruby(<<~RUBY)
        Brokerd.publish("out", "before")
        Brokerd.subscribe("probe") { |*| $heard = true }
        sleep 0.1
        Process.daemon(true, true)
        Brokerd.start
        deadline = Time.now + 10
        sleep 0.02 until $heard || Time.now > deadline
        Brokerd.publish("out", "behind \#{$heard}")
      RUBY
      collected("behind true")
      collected("before")
    end

    it "while other threads publish" do
      collector
      child = ruby(<<~RUBY, limit: 60)
        threads = Array.new(3) { Thread.new { loop { Brokerd.publish("noise", "x"); Thread.pass } } }
        10.times do |n|
          Process.wait(fork { Brokerd.publish("out", "child \#{n}") })
          $?.success? or abort "child \#{n}: \#{$?}"
        end
        threads.each(&:kill)
      RUBY
      expect_clean_end(child)
      10.times { |n| collected("child #{n}") }
    end

    it "in a request, while WebSockets are open" do
      collector
      app = <<~RUBY
        use Brokerd::Middleware
        HANDLER = Object.new
        def HANDLER.on_message(client, data) = client.write(data)
        run(lambda do |env|
          next [200, {}, []].tap { env["rack.upgrade"] = HANDLER } if env["rack.upgrade?"]
          pid = fork { Brokerd.publish("out", "of a request") }
          [200, { "content-type" => "text/plain" }, [Process.wait2(pid)[1].success?.to_s]]
        end)
      RUBY
      server = start_server(app)
      client = websocket(server: server)
      3.times do
        expect(get(server: server).body).to eq("true")
        client.text("open")
        expect(client.receive).to eq("open")
      end
      collected("of a request")
    end

    it "preload_app with the link and subscriptions open in the master" do
      app = <<~RUBY
        Brokerd.start
        Brokerd.subscribe("all") { |_, message| report("\#{Process.pid} \#{message}") }
        deadline = Time.now + 10
        sleep 0.01 until Brokerd.stats[:connected] || Time.now > deadline
        report("master \#{Process.pid} \#{Brokerd.stats[:connected]}")
        use Brokerd::Middleware
        run ->(env) { [200, { "content-type" => "text/plain" }, [Process.pid.to_s]] }
      RUBY
      server = start_server(app, workers: 2, preload: true)
      expect(server.report(/^master/)).to eq("master #{server.pid} true")
      pids = []
      server.wait_for("both workers") { (pids |= [get(server: server).body]).size == 2 }
      server.wait_for("a message in all three") do
        broker.publish("all", "x")
        (pids + [server.pid.to_s] - server.reports.grep(/ x$/).map { |line| line.split[0] }).empty?
      end
    end
  end

  it "without descriptors the link says so, and comes back when there are some" do
    child = start_ruby(<<~RUBY)
      require "logger"
      $stdout.sync = true
      Brokerd.configure { |c| c.logger = Logger.new($stdout) }
      Brokerd.subscribe("out") { |_, message| puts "got " + message }
      sleep 0.01 until Brokerd.stats[:connected]
      soft, hard = Process.getrlimit(:NOFILE)
      Process.setrlimit(:NOFILE, 3, hard)
      puts "connected"
      sleep 0.01 until $again
      Process.setrlimit(:NOFILE, soft, hard)
      puts "descriptors"
      sleep
      BEGIN { trap("USR1") { $again = true } }
    RUBY
    wait_for("the link") { child.output.include?("connected\n") }
    broker.stop("KILL")
    broker.start
    wait_for("a log line") { child.output.include?("Too many open files") }
    child.signal("USR1")
    wait_for("a delivery") do
      broker.publish("out", "again")
      child.output.include?("got again")
    end
  end
end
