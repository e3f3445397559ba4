# frozen_string_literal: true

require "json"
require_relative "publisher"
require_relative "watch"

# The clients' subscription has no block: messages go to the browser without Ruby. Nobody publishes to the rooms; with them the
# broker has enough channels to keep in mind whom those that are published to go to, and that changes as processes come and go.
class Member
  ROOMS = Array.new(20) { |n| "room:#{n}" }.freeze

  def on_open(client)
    client.subscribe(Publisher::CHANNEL)
    ROOMS.each { |room| client.subscribe(room) }
  end
end

# What the script asks of a process.
class Control
  def initialize
    @process_gaps = 0
    Brokerd.config.on_gap = ->(count, _) { @process_gaps += count }
  end

  def start(number, rate)
    @publisher = Publisher.new(number, rate)
    @thread = Thread.new { @publisher.run }
  end

  # @return [Integer] the last sequence, when all are answered: what is published after this comes behind it
  def finish
    return unless @publisher

    @publisher.finish
    @thread.value.tap { Publisher.wait_for_answers }
  end

  def watch
    @watch = Watch.new
    watch = @watch
    Brokerd.subscribe(Publisher::CHANNEL) { |_, message| watch.message(message) }.on_gap { |*gap| watch.gap(*gap) }
  end

  def report
    { stats: Brokerd.stats, gap_messages: @process_gaps, watch: @watch&.to_h, refused: @publisher&.refused }
  end
end

CONTROL = Control.new
MEMBER = Member.new

use Brokerd::Middleware
run(lambda do |env|
  if env["rack.upgrade?"]
    env["rack.upgrade"] = MEMBER
    next [200, {}, []]
  end

  _, command, *arguments = env["PATH_INFO"].split("/")
  result = CONTROL.public_send(command, *arguments.map(&:to_i))
  [200, { "content-type" => "application/json" }, [JSON.generate(command == "report" ? result : { result: command == "finish" ? result : nil })]]
end)
