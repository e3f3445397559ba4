# frozen_string_literal: true

# Written for iodine but for the first line: the WebSocket shootout. A client asks for an echo or a broadcast:
#   {"type":"echo","payload":...}        comes back as it is
#   {"type":"broadcast","payload":...}   goes to all; the sender gets {"type":"broadcastResult",...} besides
require "brokerd/iodine"
require "json"

module Shootout
  def self.on_open(client)
    client.subscribe("shootout")
  end

  def self.on_message(client, data)
    command = JSON.parse(data)
    if command["type"] == "broadcast"
      client.publish("shootout", data)
      client.write(JSON.generate(command.merge("type" => "broadcastResult")))
    else
      client.write(data)
    end
  end
end

run(lambda do |env|
  env["rack.upgrade"] = Shootout if env["rack.upgrade?"] == :websocket
  [200, { "content-type" => "text/plain" }, ["Open a WebSocket.\n"]]
end)
