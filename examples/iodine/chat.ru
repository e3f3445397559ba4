# frozen_string_literal: true

# Written for iodine but for the first line. The path is the name:  ws://localhost:9292/ada
# Everyone hears everyone; names starting with an `@` before a message make it a whisper:  @ada hello
require "brokerd/iodine"

class Guest
  def initialize(name)
    @name = name
  end

  def on_open(client)
    client.subscribe(to: "lobby")
    client.subscribe("to:#{@name}") { |_source, message| client.write("(whispered) #{message}") }
    client.publish("lobby", "#{@name} is here")
  end

  def on_message(client, data)
    if (whisper = data.match(/\A@(\S+) (.*)/m))
      client.publish("to:#{whisper[1]}", "#{@name}: #{whisper[2]}")
    else
      client.publish("lobby", "#{@name}: #{data}")
    end
  end

  def on_shutdown(client)
    client.write("the server goes down, come back")
  end

  def on_close(_client)
    Iodine.publish("lobby", "#{@name} has left")
  end
end

run(lambda do |env|
  name = env["PATH_INFO"].delete_prefix("/")
  env["rack.upgrade"] = Guest.new(name.empty? ? "somebody" : name) if env["rack.upgrade?"]
  [200, { "content-type" => "text/plain" }, ["Open a WebSocket to /your-name.\n"]]
end)
