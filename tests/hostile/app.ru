# frozen_string_literal: true

# What is attacked: a channel to listen to and to publish on, an echo, and the counts of what is there.
require "brokerd"
require "fiddle"
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

# KiB that malloc has given out and not got back, where it can be asked (glibc on x86-64: the struct is returned through
# a hidden first argument); else nil.
module Heap
  def self.function
    return unless RUBY_PLATFORM.start_with?("x86_64-linux")

    @function ||= Fiddle::Function.new(Fiddle.dlopen(nil)["mallinfo2"], [Fiddle::TYPE_VOIDP], Fiddle::TYPE_VOIDP)
  rescue Fiddle::DLError
    nil
  end

  def self.used
    return unless function

    info = Fiddle::Pointer.malloc(80, Fiddle::RUBY_FREE)
    function.call(info)
    info[0, 80].unpack("Q10").values_at(4, 7).sum / 1024 # mapped apart, and in the arenas
  end
end

COUNTS = lambda do
  2.times { GC.start }
  rss = File.read("/proc/self/status")[/VmRSS:\s+(\d+)/, 1].to_i
  descriptors = Dir.children("/proc/self/fd")
  sockets = descriptors.count { |fd| File.readlink("/proc/self/fd/#{fd}").start_with?("socket") rescue false }
  Brokerd.stats.merge(objects: ObjectSpace.each_object(Brokerd::Client).count, descriptors: descriptors.size, sockets: sockets, rss_kib: rss, heap_kib: Heap.used)
end

use Brokerd::Middleware
run(lambda do |env|
  path = env["PATH_INFO"]
  env["rack.upgrade"] = HANDLERS[path] if env["rack.upgrade?"]
  [200, { "content-type" => "application/json" }, [path == "/counts" ? JSON.generate(COUNTS.call) : "{}"]]
end)
