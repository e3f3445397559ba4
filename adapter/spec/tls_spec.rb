# frozen_string_literal: true

require "spec_helper"
require "support/certificates"

RSpec.describe "The link over tls+tcp" do
  let(:authority) { Support::Authority.new(folder, "authority") }
  let(:port) { Support::Ports.free }
  let(:url) { "tls+tcp://localhost:#{port}" }
  let(:app) do
    <<~RUBY
      use Brokerd::Middleware
      MEMBER = Object.new
      def MEMBER.on_open(client)
        client.subscribe("news")
        client.write(Process.pid.to_s)
      end
      def MEMBER.on_message(client, data) = client.publish("news", data)
      run(lambda do |env|
        env["rack.upgrade"] = MEMBER if env["rack.upgrade?"]
        [200, {}, []]
      end)
    RUBY
  end

  def tls_broker(*options, names: "DNS:localhost", seconds: 30 * 86_400)
    cert, key = authority.issue("broker", names, seconds: seconds)
    broker("--no-journal", "--listen", url, "--tls-cert", cert, "--tls-key", key, *options)
  end

  # Subscriptions are in force when a mark came; marks go by the broker's unix socket.
  def settle(clients)
    clients.each do |client|
      wait_for("a subscription") do
        broker.publish("news", "mark")
        client.receive(0.2) == "mark"
      rescue RuntimeError
        false
      end
    end
    broker.publish("news", "last mark")
    clients.each { |client| nil until client.receive == "last mark" }
  end

  it "carries publishes to WebSocket clients of all workers, with a client certificate" do
    cert, key = authority.issue("worker", "DNS:worker")
    tls_broker("--tls-client-ca", authority.file)
    env = { "BROKERD_CA_FILE" => authority.file, "BROKERD_CERT_FILE" => cert, "BROKERD_KEY_FILE" => key }
    server = start_server(app, url: url, env: env, workers: 2)
    clients = {}
    until clients.size == 2
      client = websocket(server: server)
      pid = client.receive
      clients.key?(pid) ? client.drop : clients[pid] = client
    end
    settle(clients.values)
    20.times do |n|
      clients.values[n % 2].text("message #{n}")
      clients.each_value { |c| expect(c.receive).to eq("message #{n}") }
    end
    large = "x" * 200_000
    clients.values.first.text(large)
    clients.each_value { |c| expect(c.receive).to eq(large) }
  end

  it "goes on after the broker was killed and started again" do
    tls_broker
    server = start_server(app, url: url, env: { "BROKERD_CA_FILE" => authority.file })
    client = websocket(server: server).tap(&:receive)
    settle([client])
    broker.stop("KILL")
    broker.start
    settle([client])
    client.text("after")
    expect(client.receive).to eq("after")
  end

  it "names a wrong authority in one clear line, and recovers when the right one comes" do
    tls_broker
    ca = File.join(folder, "ca.pem")
    FileUtils.cp(Support::Authority.new(folder, "somebody").file, ca)
    server = start_server(app, url: url, env: { "BROKERD_CA_FILE" => ca })
    client = websocket(server: server).tap(&:receive)
    refused = /no link to #{Regexp.escape(url)}: TLS failed: its certificate is refused: unable to get local issuer certificate/
    wait_for("the line") { server.log.match?(refused) }
    expect(broker.output).to match(/tls\+tcp peer 127\.0\.0\.1 port \d+ ended: TLS failed: it refused: tlsv1 alert unknown ca/)
    FileUtils.cp(authority.file, ca)
    wait_for("the link") { server.log.include?("attached to #{url}") }
    settle([client])
    expect(server.log.scan(refused).size).to eq(1)
  end

  it "refuses an expired certificate and one for another host, by name" do
    tls_broker(names: "DNS:elsewhere", seconds: 3600)
    log = ruby("Brokerd.publish('a', 'b')", url: url, env: { "BROKERD_CA_FILE" => authority.file, "BROKERD_SHUTDOWN_TIMEOUT" => "1" })
    expect(log.output + log.errors).to include("its certificate is refused: hostname mismatch")
    broker.stop
    authority.issue("broker", "DNS:localhost", seconds: -60)
    broker.start
    log = ruby("Brokerd.publish('a', 'b')", url: url, env: { "BROKERD_CA_FILE" => authority.file, "BROKERD_SHUTDOWN_TIMEOUT" => "1" })
    expect(log.output + log.errors).to include("its certificate is refused: certificate has expired")
  end

  it "refuses a broker's certificate that its authority has revoked, and takes the next one" do
    tls_broker
    revoked = authority.revoke(File.join(folder, "broker.pem"))
    server = start_server(app, url: url, env: { "BROKERD_CA_FILE" => authority.file, "BROKERD_CRL_FILE" => revoked })
    client = websocket(server: server).tap(&:receive)
    wait_for("the line") { server.log.include?("TLS failed: its certificate is refused: certificate revoked") }
    authority.issue("broker", "DNS:localhost")
    broker.stop
    broker.start
    wait_for("the link") { server.log.include?("attached to #{url}") }
    settle([client])
  end

  it "says so when a key has no certificate" do
    log = ruby("Brokerd.publish('a', 'b')", url: url,
               env: { "BROKERD_KEY_FILE" => authority.issue("worker", "DNS:worker").last, "BROKERD_SHUTDOWN_TIMEOUT" => "1" })
    expect(log.output + log.errors).to match(/key_file/i)
  end
end
