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
end
