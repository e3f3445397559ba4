# frozen_string_literal: true

require "spec_helper"

# A server of another make, with a client class of its own and nothing of ours in front: an event stream on Puma by
# the partial hijack. Its class gets pub/sub by prepend, as the draft has it.
RSpec.describe "A foreign server's client class with prepend Brokerd::PubSub" do
  app = <<~'RUBY'
    class Stream
      attr_reader :name

      def initialize(name, io)
        @name = name
        @io = io
        @lock = Mutex.new
        @open = true
      end

      def pubsub? = false
      def open? = @open

      def write(data)
        @lock.synchronize { @io.write("data: #{data}\n\n") }
        true
      rescue SystemCallError, IOError
        close
        false
      end

      def close
        @open = false
        @io.close unless @io.closed?
        nil
      end

      # The peer sends nothing: the end of its stream is its end.
      def watch = Thread.new { close if @io.wait_readable && @io.read_nonblock(1, exception: false).nil? }
    end

    run(lambda do |env|
      next [200, { "content-type" => "text/plain" }, ["#{Process.pid} #{Brokerd.stats[:channels] + Brokerd.stats[:patterns]}"]] if env["PATH_INFO"] == "/stats"

      open = lambda do |io|
        client = Stream.new(env["PATH_INFO"].delete_prefix("/"), io)
        client.class.prepend(Brokerd::PubSub) unless client.pubsub?
        client.subscribe("all")
        client.subscribe("to.*", true) { |channel, message| client.write("#{client.name} hears #{message} on #{channel}") }
        client.write("#{Process.pid} #{client.pubsub?}")
        client.watch
      end
      [200, { "content-type" => "text/event-stream", "rack.hijack" => open }, []]
    end)
  RUBY

  def connect(server, name)
    event_stream(server: server, path: "/#{name}")
  end

  # One client in each of the two workers.
  def one_in_each(server)
    found = {}
    wait_for("both workers") do
      stream = connect(server, "n#{found.size}")
      pid, version = stream.receive.split
      expect(version).to eq("0")
      found.key?(pid) ? stream.drop : found[pid] = stream
      found.size == 2
    end
    found.values
  end

  # What comes first of what was not said to find out whether the subscription stands.
  def answers(stream, limit = 10)
    nil while (message = stream.receive(limit)).include?("mark")
    message
  end

  it "P-30 P-31 P-10 joins two workers through the broker, in order, and ends with the client" do
    server = start_server(app, workers: 2)
    streams = one_in_each(server)
    streams.each do |stream|
      wait_for("the subscriptions") do
        broker.publish("to.mark", "mark")
        stream.receive(0.2)
      rescue RuntimeError
        nil
      end
    end
    broker.publish("all", "news")
    broker.publish("to.b", "a word")
    expect(streams.map { |stream| answers(stream) }).to eq(%w[news news])
    expect(streams.map { |stream| answers(stream) }).to contain_exactly(/\An\d hears a word on to.b\z/, /\An\d hears a word on to.b\z/)
    streams.each(&:drop)
    left = {}
    wait_for("all subscriptions to end") do
      pid, count = get(server: server, path: "/stats").body.split
      left[pid] = count
      left.size == 2 && left.values.uniq == ["0"]
    end
    expect(broker.ctl("channels", "--json").first).to eq("[]\n")
  end

  it "P-11 the subscriptions of a client that is dropped end when it is garbage-collected" do
    program = ruby(<<~'RUBY')
      class Foreign
        def open? = true
        def write(data) = nil
      end
      Foreign.prepend(Brokerd::PubSub)
      def some = 50.times { |n| Foreign.new.subscribe("dropped#{n}") }
      kept = Foreign.new
      kept.subscribe("kept")
      some
      sleep 0.01 until Brokerd.stats[:channels] > 40 # they come one by one, and some may have gone
      deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + 15
      # the stack may hold on to the last few
      until Brokerd.stats[:channels] < 10 || Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline
        GC.start
        sleep 0.05
      end
      GC.start
      heard = Queue.new
      kept.subscribe("kept") { |_, message| heard << message }
      Brokerd.publish("kept", "still there", false)
      p Brokerd.stats[:channels] < 10, heard.pop
    RUBY
    expect(program.output.lines(chomp: true)).to eq(["true", '"still there"']), program.errors
  end
end
