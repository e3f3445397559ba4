# frozen_string_literal: true

require "spec_helper"

RSpec.describe "examples/redis_engine.ru" do
  def redis_installed?
    Gem::Specification.find_by_name("redis") && system("redis-server", "--version", out: File::NULL)
  rescue Gem::MissingSpecError
    false
  end

  def start_redis
    socket = File.join(folder, "redis.sock")
    redis = keep(Support::Child.new({}, ["redis-server", "--port", "0", "--unixsocket", socket, "--save", ""],
                                    log: File.join(folder, "redis.log"), chdir: folder))
    wait_for("redis to listen") do
      raise redis.output unless redis.alive?

      UNIXSocket.new(socket).close || true
    rescue SystemCallError
      false
    end
    socket
  end

  def serve(redis, name)
    home = File.join(folder, name).tap { |path| Dir.mkdir(path) }
    broker = keep(Support::Broker.new(home))
    start_server(File.read(File.expand_path("../../examples/redis_engine.ru", __dir__)),
                 url: broker.url, workers: 2, env: { "REDIS_URL" => "unix://#{redis}" })
  end

  def until_heard(speaker, listener, message)
    wait_for("#{message} to be heard") do
      speaker.text(message)
      heard = listener.receive(0.3) until heard == message
      true
    rescue RuntimeError
      nil
    end
  end

  # What came before both forms of the last message.
  def until_end(client)
    seen = []
    seen << client.receive until seen.include?("the end") && seen.include?("(chat) the end")
    seen
  end

  it "P-40 P-49 carries messages through a real Redis between the processes of two brokers, each once for each subscription" do
    skip "needs the redis gem and redis-server" unless redis_installed?
    redis = start_redis
    clients = [serve(redis, "one"), serve(redis, "two")].flat_map { |server| Array.new(3) { websocket(server: server) } }
    clients.each { |client| until_heard(clients.first, client, "hello") }
    clients.first.text("from one")
    clients.first.text("the end")
    clients.each do |client|
      expect(until_end(client).grep(/from one/)).to contain_exactly("from one", "(chat) from one")
    end
  end
end
