# frozen_string_literal: true

# An engine on Redis: processes of different brokers hear each other, and anything that publishes to Redis.
#   gem install redis;  REDIS_URL=redis://127.0.0.1:6379 bundle exec puma -w 2 examples/redis_engine.ru
require "brokerd"
require "redis"

class RedisEngine < Brokerd::PubSub::Engine
  PREFIX = "live:" # our channels in Redis
  PAUSE = 0.5 # seconds before Redis is tried again

  def initialize(url)
    @url = url
    @redis = Redis.new(url: url) # connects at its first use, anew after a fork
    @wanted = {}
  end

  # Called in each process, for each channel or pattern that it wants. One subscription at Redis serves them all:
  # Redis sends a message once for each subscription that matches, and here it is to be delivered once.
  def subscribe(to, is_pattern = false)
    @wanted[[to, is_pattern]] = true
    @thread = Thread.new { follow } unless @thread&.alive? # threads do not survive a fork
    true
  end

  def unsubscribe(from, is_pattern = false)
    @wanted.delete([from, is_pattern])
    true
  end

  def publish(channel, message)
    @redis.publish("#{PREFIX}#{channel}", message)
    true
  rescue Redis::BaseConnectionError => e
    Brokerd.logger.warn("redis engine") { "a message was not published: #{e.message}" }
    false
  end

  private

  def follow
    loop do
      listen
    rescue RedisClient::ConnectionError => e
      Brokerd.logger.warn("redis engine") { "#{e.message}; messages may be missed" }
      sleep PAUSE
    end
  end

  def listen
    events = RedisClient.new(url: @url).pubsub
    events.call("PSUBSCRIBE", "#{PREFIX}*")
    loop do
      kind, _, channel, message = events.next_event(0)
      Brokerd.publish(channel.delete_prefix(PREFIX), message, false) if kind == "pmessage" && @wanted.any?
    end
  ensure
    events&.close
  end
end

engine = RedisEngine.new(ENV.fetch("REDIS_URL", "redis://127.0.0.1:6379"))
Brokerd::PubSub.attach(engine)
Brokerd::PubSub.default = engine

module Chat
  def self.on_open(client)
    client.subscribe("chat")
    client.subscribe("chat*", true) { |channel, message| client.write("(#{channel}) #{message}") }
  end

  def self.on_message(client, data)
    client.publish("chat", data)
  end
end

use Brokerd::Middleware

run(lambda do |env|
  env["rack.upgrade"] = Chat if env["rack.upgrade?"]
  [200, { "content-type" => "text/plain" }, ["Open a WebSocket to this address.\n"]]
end)
