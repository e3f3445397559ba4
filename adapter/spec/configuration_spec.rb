# frozen_string_literal: true

require "spec_helper"

RSpec.describe Brokerd::Configuration do
  subject(:config) { described_class.new }

  # Sets environment variables for the block.
  def with_env(variables)
    before = variables.keys.to_h { |name| [name, ENV[name]] }
    variables.each { |name, value| ENV[name] = value }
    yield
  ensure
    before.each { |name, value| ENV[name] = value }
  end

  around { |example| with_env("BROKERD_URL" => nil, "BROKERD_APP" => nil) { example.run } }

  it "S-67 has the defaults that are documented" do
    values = described_class.names.reject { |name| name == :logger }.to_h { |name| [name, config.public_send(name)] }
    expect(values).to eq(
      url: nil, secret_file: nil, ca_file: nil, crl_file: nil, cert_file: nil, key_file: nil, allowed_origins: nil, max_message: 262_144,
      max_pending: 1_048_576, ping: 40, pong_timeout: 20, stall_timeout: 30, callback_threads: 4, env: :full, deflate: false, io_uring: true,
      shutdown_timeout: 5, trust_proxy: false, on_gap: nil
    )
  end

  it "S-67 takes every setting but on_gap and logger from the environment, which wins" do
    config.update(ping: 7, url: "tcp://127.0.0.1:1", env: :full, deflate: false, allowed_origins: :any)
    with_env("BROKERD_PING" => "9", "BROKERD_URL" => "ipc:///tmp/x", "BROKERD_ENV" => "slim", "BROKERD_DEFLATE" => "true",
             "BROKERD_ALLOWED_ORIGINS" => "https://a.example, https://b.example", "BROKERD_ON_GAP" => "x", "BROKERD_MAX_MESSAGE" => "1000") do
      expect(config.ping).to eq(9)
      expect(config.url).to eq("ipc:///tmp/x")
      expect(config.env).to eq(:slim)
      expect(config.deflate).to be(true)
      expect(config.max_message).to eq(1000)
      expect(config.allowed_origins).to eq(%w[https://a.example https://b.example])
      expect(config.on_gap).to be_nil
    end
    expect(config.ping).to eq(7)
    with_env("BROKERD_ENV" => "false", "BROKERD_ALLOWED_ORIGINS" => "any") do
      expect([config.env, config.allowed_origins]).to eq([false, :any])
    end
  end

  it "says clearly what is wrong" do
    { url: "http://x", ping: -1, max_message: "1", callback_threads: 0, env: :huge, deflate: "yes", allowed_origins: 5, on_gap: 1,
      logger: 1, pong_timeout: 0 }.each do |name, value|
      expect { config.update(name => value) }.to raise_error(Brokerd::ConfigurationError, /the setting #{name} is .* but it must be /)
    end
    with_env("BROKERD_PING" => "soon") { expect { config.ping }.to raise_error(Brokerd::ConfigurationError, /BROKERD_PING is "soon", but it must be a whole number/) }
    expect { config.update(pings: 1) }.to raise_error(Brokerd::ConfigurationError, /no setting :pings/)
    config.secret_file = "/nonexistent"
    expect { config.runtime }.to raise_error(Brokerd::ConfigurationError, /secret_file is "\/nonexistent", which cannot be read/)
    expect { Brokerd::Middleware.new(nil, wrong: 1) }.to raise_error(Brokerd::ConfigurationError)
  end

  it "without a URL the application has a broker of its own, told apart by the Gemfile's folder or BROKERD_APP" do
    inside = File.join(folder, "lib", "deep")
    FileUtils.mkdir_p(inside)
    FileUtils.touch(File.join(folder, "Gemfile"))
    with_env("BUNDLE_GEMFILE" => nil) do
      Dir.chdir(inside) { expect(Brokerd::Embedded.application).to eq(File.realpath(folder)) }
      Dir.chdir(inside) { expect(config.runtime).to include(url: "ipc://#{Brokerd::Embedded.socket}") }
    end
    with_env("BUNDLE_GEMFILE" => File.join(folder, "Gemfile")) { expect(Brokerd::Embedded.application).to eq(File.realpath(folder)) }
    socket = with_env("BROKERD_APP" => "mine") { Brokerd::Embedded.socket }
    expect(socket).to eq("/tmp/brokerd-#{Process.uid}/#{Digest::SHA256.hexdigest('mine')[0, 16]}.sock")
    expect(File.stat(File.dirname(socket)).mode & 0o777).to eq(0o700)
  end
end
