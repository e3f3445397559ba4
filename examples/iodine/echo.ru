# frozen_string_literal: true

# Written for iodine but for the first line:  bundle exec puma -w 2 examples/iodine/echo.ru
require "brokerd/iodine"

class Echo
  def on_open(client)
    client.write("Connected over #{client.protocol}.")
  end

  def on_message(client, data)
    client.write(data)
  end
end

run(lambda do |env|
  env["rack.upgrade"] = Echo.new if env["rack.upgrade?"]
  [200, { "content-type" => "text/plain" }, ["Open a WebSocket.\n"]]
end)
