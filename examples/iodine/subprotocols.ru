# frozen_string_literal: true

# Written for iodine but for the first line: the client offers sub-protocols, the application takes the first that
# it knows, and each has a callback object of its own.
require "brokerd/iodine"

module Upper
  def self.on_message(client, data)
    client.write(data.upcase)
  end
end

module Reverse
  def self.on_message(client, data)
    client.write(data.reverse)
  end
end

SPOKEN = { "upper" => Upper, "reverse" => Reverse }.freeze

run(lambda do |env|
  next [200, { "content-type" => "text/plain" }, ["Open a WebSocket.\n"]] unless env["rack.upgrade?"] == :websocket

  chosen = env["HTTP_SEC_WEBSOCKET_PROTOCOL"].to_s.split(/,\s*/).find { |name| SPOKEN.key?(name) }
  next [400, { "content-type" => "text/plain" }, ["This server speaks #{SPOKEN.keys.join(' and ')}.\n"]] unless chosen

  env["rack.upgrade"] = SPOKEN.fetch(chosen)
  [101, { "sec-websocket-protocol" => chosen }, []]
end)
