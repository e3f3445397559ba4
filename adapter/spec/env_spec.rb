# frozen_string_literal: true

require "spec_helper"

# What a client keeps of its request, by the setting `env` (S-40).
RSpec.describe "client.env" do
  # Reports the kept env and then writes the value that is asked for.
  asking = <<~RUBY
    env['my.key'] = 'mine'
    env['rack.upgrade'] = handler do
      def on_open(client) = client.write(client.env.keys.sort.join(' '))
      def on_message(client, data) = client.write(client.env[data].inspect)
    end
    [200, {}, []]
  RUBY

  def keys(app, **options)
    headers = { "X-Custom" => "yes", "Cookie" => "c=d", "Last-Event-ID" => "42" }
    websocket(app: app, path: "/some/where?a=b", headers: headers, **options).receive.split
  end

  { ":full" => %w[HTTP_X_CUSTOM HTTP_COOKIE HTTP_LAST_EVENT_ID PATH_INFO QUERY_STRING REMOTE_ADDR SERVER_PROTOCOL my.key rack.upgrade rack.upgrade?],
    ":slim" => %w[HTTP_COOKIE HTTP_HOST HTTP_LAST_EVENT_ID PATH_INFO QUERY_STRING REMOTE_ADDR REQUEST_METHOD SCRIPT_NAME SERVER_NAME SERVER_PORT
                  my.key rack.upgrade rack.upgrade? rack.url_scheme],
    "false" => %w[rack.upgrade rack.upgrade?] }.each do |extent, expected|
    describe "env: #{extent}" do
      lab("#{Support::Lab::CLASSES}\nuse Brokerd::Middleware, env: #{extent}\nrun ->(env) { Lab.new(env).call }")

      it "S-40 keeps what is documented and nothing of the server's own" do
        kept = keys(asking)
        expect(kept).to include(*expected)
        expect(kept & %w[rack.hijack rack.hijack_io rack.input rack.errors puma.socket puma.config rack.response_finished]).to be_empty
        expect(kept).to match_array(expected) unless extent == ":full"
      end

      it "S-40 has values that can be read in every callback, until on_close" do
        client = websocket(app: <<~RUBY, path: "/path?query")
          env['rack.upgrade'] = handler do
            def on_message(client, data) = client.write([client.env['PATH_INFO'], client.env['rack.upgrade?']].inspect)
            def on_close(client) = report([client.env['PATH_INFO'], client.env['rack.upgrade'].equal?(self)].inspect)
          end
          [200, {}, []]
        RUBY
        path = extent == "false" ? nil : "/path"
        client.text("x")
        expect(client.receive).to eq([path, :websocket].inspect)
        client.close
        wait_for_report([path, true].inspect)
      end

      it "S-40 the application sees the whole request however little is kept, Last-Event-ID for one" do
        app = "id = env['HTTP_LAST_EVENT_ID']; env['rack.upgrade'] = handler { define_method(:on_open) { |client| client.write(id) } }; [200, {}, []]"
        expect(event_stream(app: app, headers: { "Last-Event-ID" => "42" }).receive).to eq("42")
      end

      it "S-63 handler= updates what is kept" do
        client = websocket(<<~RUBY)
          def on_message(client, data)
            client.handler = other = Object.new
            client.write(client.env['rack.upgrade'].equal?(other).to_s)
          end
        RUBY
        client.text("x")
        expect(client.receive).to eq("true")
      end
    end
  end

  # An application that keeps nothing of the request alive itself.
  describe "when only the client has it" do
    lab(<<~RUBY)
      class Kept
        def initialize(were)
          @were = were
        end

        # Copies, and none of the server's own objects, which know env.
        def self.entries(env)
          env.select { |key, _| Symbol === key || key.match?(/\A(?:[A-Z]|my)/) }.map { |key, value| [key.dup, value.dup, value.class] }
        end

        def on_message(client, data)
          GC.start
          GC.compact if GC.respond_to?(:compact)
          env = client.env
          are = Kept.entries(env)
          same = are == @were && are.zip(@were).all? { |(_, one), (_, other)| !(String === one) || one.encoding == other.encoding }
          client.write([same, env['HTTP_X_TAGGED'].instance_variable_get(:@tag), env.size > 20].inspect)
        end
      end

      use Brokerd::Middleware
      run(lambda do |env|
        env['HTTP_X_WIDE'] = 'wide'.encode('UTF-16LE')
        env['HTTP_X_NAMED'] = Class.new(String).new('named')
        env['HTTP_X_TAGGED'] = String.new('tagged').tap { |text| text.instance_variable_set(:@tag, 1) }
        env['HTTP_X_NUMBER'] = 7
        env[:nickname] = 'a symbol is a key'
        env['my.flag'] = nil
        env['rack.upgrade'] = Kept.new(Kept.entries(env))
        [200, {}, []]
      end)
    RUBY

    it "S-40 has each entry as it was, in the same order" do
      headers = { "X-Bytes" => "caf\xE9", "X-Empty" => "", "X-Long" => "x" * 9000 }
      # Several: the server's threads remember a request or two.
      clients = Array.new(10) { websocket(path: "/p\u00e4th?q", headers: headers) }
      clients.each do |client|
        client.text("x")
        expect(client.receive(30)).to eq("[true, 1, true]")
      end
    end
  end

  describe "as it comes back" do
    lab

    it "S-40 has the application's own objects, and stays what the application made of it" do
      client = websocket(app: <<~RUBY)
        buffer = env['my.buffer'] = String.new('mutable')
        object = env['my.object'] = Object.new
        env['rack.upgrade'] = handler do
          define_method(:on_open) { |client| client.env['my.later'] = 'later'; client.env['PATH_INFO'] << 'more' }
          define_method(:on_message) do |client, data|
            GC.start
            GC.compact if GC.respond_to?(:compact)
            env = client.env
            client.write([env['my.buffer'].equal?(buffer), env['my.object'].equal?(object), env.equal?(client.env), env['my.later'], env['PATH_INFO']].inspect)
          end
        end
        [200, {}, []]
      RUBY
      client.text("x")
      expect(client.receive(30)).to eq('[true, true, true, "later", "/more"]')
    end

    it "S-40 keeps a Hash with keys of any kind" do
      client = websocket(app: <<~RUBY)
        env[[1, 2]] = 'an Array'
        env['rack.upgrade'] = handler { def on_open(client) = client.write(client.env.values_at([1, 2], 'PATH_INFO').inspect) }
        [200, {}, []]
      RUBY
      expect(client.receive).to eq('["an Array", "/"]')
    end

    it "stands together with other clients in the heap, apart from what requests leave behind" do
      pages = <<~RUBY
        require 'objspace'
        size = GC::INTERNAL_CONSTANTS[:HEAP_PAGE_SIZE] || 65_536
        clients = ObjectSpace.each_object(Brokerd::Client).select(&:open?)
        pages = clients.map { |client| ObjectSpace.dump(client)[/"address":"0x(\\h+)"/, 1].to_i(16) / size }.uniq
        [200, {}, [[clients.size, pages.size].join(' ')]]
      RUBY
      Array.new(100) { websocket("def on_open(client) = client.subscribe('one')").tap { 3.times { get } } }
      figures = wait_for("100 clients") { get(pages).body.split.map(&:to_i).then { |found| found if found[0] == 100 } }
      expect(figures[1]).to be < 20
    end

    it "costs the heap one object a client until somebody asks for it" do
      count = <<~RUBY
        require 'objspace'
        3.times { GC.start }
        clients = ObjectSpace.each_object(Brokerd::Client).select(&:open?)
        objects = ObjectSpace.count_objects.values_at(:T_HASH, :T_STRING).sum
        [200, {}, [[clients.size, objects, clients.sum { |client| ObjectSpace.memsize_of(client) }].join(' ')]]
      RUBY
      counted = ->(clients) { wait_for("#{clients} clients") { get(count).body.split.map(&:to_i).then { |figures| figures if figures[0] == clients } } }
      _, objects = counted[0]
      Array.new(100) { websocket(app: <<~RUBY, headers: { "X-Mine" => SecureRandom.hex(40) }) }
        $listens ||= Object.new.tap { |object| def object.on_open(client) = client.subscribe('one') }
        env['rack.upgrade'] = $listens
        [200, {}, []]
      RUBY
      _, more_objects, bytes = counted[100]
      expect(more_objects - objects).to be < 100
      expect(bytes / 100).to be_between(500, 4000)
    end
  end
end
