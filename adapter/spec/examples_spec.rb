# frozen_string_literal: true

require "spec_helper"

RSpec.describe "The examples" do
  def example_app(name)
    File.read(File.expand_path("../../examples/#{name}", __dir__))
  end

  it "echo.ru says what it is told" do
    client = websocket(server: start_server(example_app("echo.ru")))
    client.text("hello")
    expect(client.receive).to eq("hello")
  end

  it "ticker.ru shows what brokerctl publishes" do
    stream = event_stream(server: start_server(example_app("ticker.ru")))
    expect(stream.event.type).to eq("welcome")
    wait_for("the news") do
      broker.publish("ticker", "news")
      stream.receive(0.3) == "news"
    rescue RuntimeError
      nil
    end
  end

  it "P-40 P-49 engine.ru carries messages between servers in its file, without a broker" do
    nobody = "ipc://#{folder}/nobody.sock"
    env = { "LOG" => File.join(folder, "messages"), "BROKERD_SHUTDOWN_TIMEOUT" => "1" }
    here, there = Array.new(2) { websocket(server: start_server(example_app("engine.ru"), url: nobody, env: env)) }
    wait_for("the other server") do
      here.text("hello")
      there.receive(0.3) == "hello"
    rescue RuntimeError
      nil
    end
    expect(here.receive).to eq("hello")
  end
end
