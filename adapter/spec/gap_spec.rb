# frozen_string_literal: true

require "spec_helper"

# A ring so small that a process which is stopped for a moment is passed by.
RSpec.describe "on_gap" do
  it "P-21 an application is told how many messages it missed and why, once, and goes on" do
    broker("--no-journal", "--journal-size", "1M")
    program = start_ruby(<<~'RUBY')
      Brokerd.configure { |c| c.on_gap = ->(count, reason) { puts "process missed #{count}: #{reason}" } }
      $stdout.sync = true
      block = Brokerd.subscribe("news") { |_, message| puts "got #{message[0, 8]}" unless message.start_with?("filling") }
      block.on_gap { |count, reason| puts "block missed #{count}: #{reason}" }
      sleep
    RUBY
    wait_for("the subscription") do
      broker.publish("news", "first")
      program.output.include?("got first")
    end
    program.signal("STOP")
    lines = Array.new(400) { |n| "filling#{n} #{'x' * 10_000}\n" }.join
    output, status = broker.ctl("publish", "--lines", "news", input: lines)
    expect(status).to be_success, output
    program.signal("CONT")
    broker.publish("news", "last")
    wait_for("the last message") { program.output.include?("got last") }
    wait_for("the gap") { program.output.include?("process missed") }
    gaps = program.output.scan(/^(block|process) missed (\d+): (\w+)/)
    expect(gaps.map { |who, _, _| who }).to include("process")
    missed = gaps.select { |who, _, _| who == "process" }.sum { |_, count, _| count.to_i }
    expect(missed).to be_between(200, 400)
    expect(broker.ctl("stats").first[/^gap_messages\s+(\d+)/, 1].to_i).to eq(missed)
  end
end
