# frozen_string_literal: true

# A WebSocket echo server in a few lines:  bundle exec puma examples/echo.ru
require "brokerd"

# Any object with any of the callbacks on_open, on_message, on_drained, on_shutdown, on_close.
module Echo
  def self.on_message(client, data)
    client.write(data)
  end
end

use Brokerd::Middleware

run(lambda do |env|
  env["rack.upgrade"] = Echo if env["rack.upgrade?"] == :websocket
  [200, { "content-type" => "text/plain" }, ["Open a WebSocket to this address; it says what you say.\n"]]
end)
