# frozen_string_literal: true

require_relative "../../adapter/spec/spec_helper"
require "ferrum"

# Chromium's own EventSource and WebSocket against a server that goes away and comes back.
RSpec.describe "EventSource in Chromium" do
  flags = { "no-sandbox" => nil, "disable-gpu" => nil, "disable-quic" => nil, "no-first-run" => nil,
            "disable-background-networking" => nil, "disable-component-update" => nil, "disable-sync" => nil }

  app = <<~'RUBY'
    # Counts on from the id that the browser saw last.
    class Counter
      def on_open(client)
        id = client.env["HTTP_LAST_EVENT_ID"].to_i + 1
        client.write("number #{id}\nfrom #{Process.pid}", event: "count", id: id, retry: 100)
        client.write("\xFF text".b)
      end
    end

    # Says what the browser agreed to, and how it ends.
    class Echo
      def on_open(client) = client.write(client.env["HTTP_SEC_WEBSOCKET_EXTENSIONS"].to_s)
      def on_message(client, data) = data == "close" ? client.close : client.write(data)
    end

    PAGE = <<~HTML
      <!doctype html><meta charset="utf-8"><ul></ul><script>
        const say = (text) => document.querySelector("ul").append(Object.assign(document.createElement("li"), { textContent: text }));
        const source = new EventSource("/counter");
        source.addEventListener("count", (event) => say(`count ${event.lastEventId} ${event.data}`));
        source.onmessage = (event) => say(`message ${event.data}`);
        source.onerror = () => say(`error ${source.readyState}`);
        const socket = new WebSocket(`ws://${location.host}/echo`);
        let first = true;
        socket.onmessage = (event) => {
          if (first) { first = false; say(`extensions ${socket.extensions}`); socket.send("grüße ".repeat(1000)); }
          else { say(`echo ${event.data.length}`); socket.send("close"); }
        };
        socket.onclose = (event) => say(`closed ${event.code} ${event.wasClean}`);
      </script>
    HTML
    use Brokerd::Middleware, deflate: true
    run(lambda do |env|
      case env["PATH_INFO"]
      when "/counter" then env["rack.upgrade"] = Counter.new
      when "/echo" then env["rack.upgrade"] = Echo.new
      end
      [200, { "content-type" => "text/html; charset=utf-8" }, [PAGE]]
    end)
  RUBY

  it "connects again after a restart of the server, with Last-Event-ID; its WebSocket agrees on deflate and closes cleanly" do
    server = start_server(app)
    browser = Ferrum::Browser.new(browser_path: "/usr/bin/chromium", browser_options: flags, timeout: 20, process_timeout: 30)
    page = browser.create_page
    page.go_to("http://127.0.0.1:#{server.port}/")
    lines = -> { page.css("li").map(&:text) }
    wait_for("the first event", 20) { lines.call.include?("count 1 number 1\nfrom #{server.pid}") }
    wait_for("the WebSocket's end", 20) { lines.call.include?("closed 1000 true") }
    expect(lines.call).to include("message \uFFFD text", "echo 6000",
                                  "extensions permessage-deflate; server_no_context_takeover")
    server.stop
    again = start_server(app, port: server.port)
    wait_for("the event after the restart", 30) { lines.call.include?("count 2 number 2\nfrom #{again.pid}") }
    expect(lines.call).to include("error 0") # connecting again, not closed
  ensure
    browser&.quit
  end
end
