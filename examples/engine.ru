# frozen_string_literal: true

# An engine: an object between `publish` and whatever carries the messages. This one carries them in a file that
# several servers may share:  LOG=/tmp/messages bundle exec puma examples/engine.ru
#
# It is told which channels somebody in this process wants, and hands what it reads to this process's
# subscribers with publish(..., false).
require "brokerd"
require "json"

class FileEngine < Brokerd::PubSub::Engine
  def initialize(path)
    @path = path
    @wanted = {}
    File.open(path, "a") {}
  end

  # There is a subscription in this process; called once for each channel or pattern.
  def subscribe(to, is_pattern = false)
    @wanted[[to, is_pattern]] = true
    follow
    true
  end

  def unsubscribe(from, is_pattern = false)
    @wanted.delete([from, is_pattern])
    true
  end

  # Somebody publishes with this engine.
  def publish(channel, message)
    File.write(@path, "#{JSON.generate([channel.to_s, message])}\n", mode: "a")
    true
  end

  private

  # One thread for each process, started in it: threads do not survive a fork.
  def follow
    return if @thread&.alive?

    @thread = Thread.new do
      File.open(@path) do |file|
        file.seek(0, IO::SEEK_END)
        loop { deliver(file.gets || sleep(0.05)) }
      end
    end
  end

  def deliver(line)
    return unless line.is_a?(String)

    channel, message = JSON.parse(line)
    Brokerd.publish(channel, message, false) if wanted?(channel)
  end

  def wanted?(channel)
    @wanted.each_key.any? { |name, is_pattern| is_pattern ? File.fnmatch(name, channel) : name == channel }
  end
end

engine = FileEngine.new(ENV.fetch("LOG", "/tmp/brokerd-example.log"))
Brokerd::PubSub.attach(engine)
Brokerd::PubSub.default = engine

module Chat
  def self.on_open(client)
    client.subscribe("chat")
  end

  def self.on_message(client, data)
    client.publish("chat", data)
  end
end

use Brokerd::Middleware

run(lambda do |env|
  env["rack.upgrade"] = Chat if env["rack.upgrade?"]
  [200, { "content-type" => "text/plain" }, ["Open a WebSocket to this address.\n"]]
end)
