# frozen_string_literal: true

# A chat: everyone on the page hears everyone, whichever process serves them. The WebSocket side talks and
# listens, the SSE side only listens to the same channel.
require "json"
require "rack/utils"
require "brokerd"

CHANNEL = "chat"
URL = ENV.fetch("BROKERD_URL", nil)
COMMAND = %(build/bin/brokerctl publish #{"--url #{URL} " if URL}#{CHANNEL} "hello from a shell")
PAGE = File.read(File.join(__dir__, "index.html")).sub("{{command}}") { Rack::Utils.escape_html(COMMAND) }

# Both kinds of client are served by this one object; only WebSockets get on_message.
module Chat
  module_function

  def on_open(client)
    client.write(JSON.generate(process: Process.pid, kind: client.protocol))
    client.subscribe(CHANNEL)
  end

  def on_message(client, data)
    said = JSON.parse(data)
    client.publish(CHANNEL, JSON.generate(name: said["name"].to_s[0, 40], text: said["text"].to_s[0, 2000], from: Process.pid))
  rescue JSON::ParserError
    client.write(JSON.generate(error: "a message is a JSON object with name and text"))
  end
end

use Brokerd::Middleware

run(lambda do |env|
  case env["PATH_INFO"]
  when "/live"
    next [400, { "content-type" => "text/plain" }, ["/live is for WebSocket and EventSource\n"]] unless env["rack.upgrade?"]

    env["rack.upgrade"] = Chat
    [200, {}, []]
  when "/say" # from Ruby code that has no client at hand: a job, a console, another request
    text = Rack::Utils.parse_query(env["QUERY_STRING"])["text"].to_s
    Brokerd.publish(CHANNEL, JSON.generate(name: "Ruby", text: text, from: Process.pid))
    [204, {}, []]
  when "/"
    [200, { "content-type" => "text/html; charset=utf-8", "cache-control" => "no-cache" }, [PAGE]]
  else
    [404, { "content-type" => "text/plain" }, ["not here\n"]]
  end
end)
