# frozen_string_literal: true

# Written for iodine but for the first line: an engine that is told what this process listens to and stamps what
# is published before the cluster carries it.
require "brokerd/iodine"

class Stamp < Iodine::PubSub::Engine
  # match is :redis for a glob pattern, else nil.
  def subscribe(to, match = nil)
    warn "process #{Process.pid} wants #{match == :redis ? 'all of ' : ''}#{to}"
    true
  end

  def unsubscribe(from, match = nil)
    warn "process #{Process.pid} no longer wants #{match == :redis ? 'all of ' : ''}#{from}"
    true
  end

  def publish(to, message)
    Iodine.publish(to, "[#{to}] #{message}", Iodine::PubSub::CLUSTER)
  end
end

STAMP = Stamp.new
Iodine::PubSub.attach(STAMP)
Iodine::PubSub.default = STAMP

module News
  def self.on_open(client)
    client.subscribe(to: "news.*", match: :redis)
  end

  def self.on_message(client, data)
    client.publish("news.readers", data)
  end
end

run(lambda do |env|
  env["rack.upgrade"] = News if env["rack.upgrade?"]
  [200, { "content-type" => "text/plain" }, ["Open a WebSocket.\n"]]
end)
