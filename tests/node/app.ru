# frozen_string_literal: true

# What the clients of Node talk to. Run by clients_spec.rb.
require "brokerd"
require "json"

# Echoes, and does what it is told.
class Echo
  def on_message(client, data)
    case data
    when "close" then client.close
    when "many" then 1000.times { |n| client.write(n.to_s) }
    when "subscribe" then client.subscribe("news") && client.write("subscribed")
    else client.write(data)
    end
  end
end

# Events of every form; the stream ends after them.
class Events
  def on_open(client)
    last = client.env["HTTP_LAST_EVENT_ID"]
    return client.write("again after #{last}", id: "8", event: "resumed") if last

    client.write("first\nof two lines", retry: 50)
    client.write("grüße, 世界")
    client.write("forged?\nevent: evil\nid: evil\n\ndata: evil")
    client.write("named", event: "news", id: "7")
    client.close
  end
end

# Counts up for ever, across connections and restarts.
class Counter
  def on_open(client)
    next_id = client.env["HTTP_LAST_EVENT_ID"].to_i + 1
    client.write("number #{next_id} from #{Process.pid}", id: next_id, retry: 100)
  end
end

use Brokerd::Middleware, deflate: true, max_message: 4 << 20, env: :slim

run(lambda do |env|
  case env["PATH_INFO"]
  when "/echo", "/echo/deflate"
    env["rack.upgrade"] = Echo.new
    offered = env["HTTP_SEC_WEBSOCKET_PROTOCOL"].to_s.split(/,\s*/)
    [200, offered.include?("chat.v2") ? { "Sec-WebSocket-Protocol" => "chat.v2" } : {}, []]
  when "/events"
    env["rack.upgrade"] = Events.new
    [200, {}, []]
  when "/counter"
    env["rack.upgrade"] = Counter.new
    [200, {}, []]
  when "/gone" then [204, {}, []]
  when "/forbidden" then [403, { "content-type" => "text/plain" }, ["no"]]
  when "/publish"
    Brokerd.publish("news", "x" * 2000)
    [200, { "content-type" => "text/plain" }, ["published"]]
  else [200, { "content-type" => "text/html" }, ["<title>a page</title>"]]
  end
end)
