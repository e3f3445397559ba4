# frozen_string_literal: true

# Server-Sent Events that any process may feed:  bundle exec puma -w 2 examples/ticker.ru
#
#   curl -N -H 'Accept: text/event-stream' localhost:9292
#   brokerctl publish ticker "hello from a shell"
require "brokerd"

module Ticker
  def self.on_open(client)
    client.write("welcome, process #{Process.pid} serves you", event: "welcome")
    client.subscribe("ticker") # without a block: straight to the browser, no Ruby involved
  end
end

use Brokerd::Middleware

run(lambda do |env|
  env["rack.upgrade"] = Ticker if env["rack.upgrade?"] == :sse
  [200, { "content-type" => "text/html" }, [<<~HTML]]
    <!doctype html><meta charset="utf-8"><title>ticker</title><ul id="list"></ul>
    <script>
      const say = (text) => list.appendChild(document.createElement("li")).textContent = text;
      const source = new EventSource(location.href);
      source.onmessage = (event) => say(event.data);
      source.addEventListener("welcome", (event) => say(event.data));
    </script>
  HTML
end)
