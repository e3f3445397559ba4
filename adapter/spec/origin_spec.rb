# frozen_string_literal: true

require "spec_helper"

RSpec.describe "allowed_origins" do
  def allowed?(origin, host: "chat.example", settings: {}, env: {})
    config = Brokerd::Configuration.new.with(settings)
    Brokerd::Origin.allowed?({ "HTTP_HOST" => host, "HTTP_ORIGIN" => origin }.compact.merge(env), config)
  end

  it "without a setting: pages of the request's own host, and requests that are from no page" do
    expect(allowed?(nil)).to be(true)
    expect(allowed?("http://chat.example")).to be(true)
    expect(allowed?("https://CHAT.example")).to be(true)
    expect(allowed?("http://chat.example:80")).to be(true)
    expect(allowed?("http://chat.example:8080", host: "chat.example:8080")).to be(true)
    ["http://evil.example", "http://chat.example.evil", "http://chat.example:8080", "null", "", "file://chat.example", "chat.example",
     "http://evil.example/chat.example"].each { |origin| expect(allowed?(origin)).to be(false), origin }
  end

  it "behind a proxy: X-Forwarded-Host, with trust_proxy alone" do
    env = { "HTTP_X_FORWARDED_HOST" => "chat.example" }
    expect(allowed?("https://chat.example", host: "backend:3000", env: env)).to be(false)
    expect(allowed?("https://chat.example", host: "backend:3000", env: env, settings: { trust_proxy: true })).to be(true)
  end

  it "takes :any, a String with stars, a Regexp, or a list" do
    expect(allowed?("http://evil.example", settings: { allowed_origins: :any })).to be(true)
    list = ["https://*.example.com", /\Ahttps:\/\/partner\d\.example\z/, "https://exact.example/"]
    { "https://a.example.com" => true, "https://exact.example" => true, "https://partner7.example" => true, "https://example.com" => false,
      "https://a.example.com.evil" => false, "https://evil/.example.com" => false, "http://a.example.com" => false,
      "https://evil:1.example.com" => false, "https://chat.example" => false }.each do |origin, expected|
      expect(allowed?(origin, settings: { allowed_origins: list })).to be(expected), origin
    end
  end

  it "a refused WebSocket gets 403, the application is not called, and the log names the setting" do
    server = start_server("use Brokerd::Middleware\nrun ->(env) { report('called'); [200, {}, []] }")
    client = websocket(server: server, headers: { "Origin" => "http://evil.example" })
    expect(client.status).to eq(403)
    server.wait_for("the log") { server.log.include?("allowed_origins") }
    expect(server.reports).to be_empty
    expect(event_stream(server: server, headers: { "Origin" => "http://evil.example" }).status).to eq(200)
  end
end
