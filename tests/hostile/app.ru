# frozen_string_literal: true

# What is attacked: a channel to listen to and to publish on, an echo, and the counts of what is there.
require "brokerd"
require "json"

module Subscriber
  def self.on_open(client) = client.subscribe("bench")
end

module Publisher
  def self.on_message(client, data) = client.publish("bench", data)
end

module Echo
  def self.on_message(client, data) = client.write(data)
end

HANDLERS = { "/sub" => Subscriber, "/pub" => Publisher, "/echo" => Echo }.freeze

COUNTS = lambda do
  2.times { GC.start }
  rss = File.read("/proc/self/status")[/VmRSS:\s+(\d+)/, 1].to_i
  descriptors = Dir.children("/proc/self/fd")
  sockets = descriptors.count { |fd| File.readlink("/proc/self/fd/#{fd}").start_with?("socket") rescue false }
  Brokerd.stats.merge(objects: ObjectSpace.each_object(Brokerd::Client).count, descriptors: descriptors.size, sockets: sockets, rss_kib: rss)
end

use Brokerd::Middleware
run(lambda do |env|
  path = env["PATH_INFO"]
  env["rack.upgrade"] = HANDLERS[path] if env["rack.upgrade?"]
  [200, { "content-type" => "application/json" }, [path == "/counts" ? JSON.generate(COUNTS.call) : "{}"]]
end)
