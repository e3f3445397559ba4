# frozen_string_literal: true

require_relative "../../adapter/spec/spec_helper"

# The clients that Node programs use (the packages ws, undici and eventsource) against the gem on Puma.
RSpec.describe "clients of Node" do
  here = __dir__

  before(:context) do
    @node_folder = Dir.mktmpdir("brokerd-node")
    @node_broker = Support::Broker.new(@node_folder)
  end

  after(:context) do
    @node_server&.stop
    @node_broker&.stop
    FileUtils.rm_rf(@node_folder)
  end

  def serve(workers: 0, port: nil)
    rackup = File.expand_path("app.ru", __dir__)
    @node_server = Support::Server.new(@node_folder, "eval(File.read(#{rackup.dump}), binding, #{rackup.dump})",
                                       url: @node_broker.url, workers: workers, port: port)
  end

  def server_env
    { "SERVER" => "http://127.0.0.1:#{@node_server.port}" }
  end

  describe "Puma with two workers" do
    before(:context) { serve(workers: 2) }
    after(:context) { @node_server.stop }

    %w[ws undici eventsource].each do |package|
      it "#{package} works (RFC 6455, RFC 7692, WHATWG SSE)" do
        child = Support::Child.new(server_env, ["node", "--test", "#{package}.test.mjs"], log: File.join(folder, "node.log"), chdir: here)
        keep(child)
        expect(child.wait(60)).to be_success, child.output
        expect(child.output).to match(/^. pass [1-9]/)
      end
    end
  end

  it "eventsource connects again after a restart of the server, with Last-Event-ID" do
    serve
    child = keep(Support::Child.new(server_env, ["node", "restart.mjs"], log: File.join(folder, "node.log"), chdir: here))
    await_number = ->(number) { wait_for("number #{number}") { child.output.match?(/^#{number} number #{number} from #{@node_server.pid}$/) } }
    await_number[1]
    port = @node_server.port
    @node_server.stop
    serve(port: port)
    await_number[2]
  ensure
    @node_server&.stop # what an example sets, after(:context) does not see
  end
end
