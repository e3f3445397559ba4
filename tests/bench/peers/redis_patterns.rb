# frozen_string_literal: true

# What a PUBLISH costs a redis-server of our own, in its processor's time, when a client has subscribed to many patterns
# of which none matches:   ruby redis_patterns.rb PATTERNS PUBLISHES
# Prints {"us_per_publish": 12.3}.
require "json"
require "socket"
require "tmpdir"

def command(*words)
  "*#{words.size}\r\n#{words.map { |word| "$#{word.bytesize}\r\n#{word}\r\n" }.join}"
end

def processor_time(pid)
  File.read("/proc/#{pid}/stat").rpartition(")").last.split[11, 2].sum(&:to_i) * 1e6 / Etc.sysconf(Etc::SC_CLK_TCK)
end

def connect(path)
  deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + 10
  begin
    UNIXSocket.new(path)
  rescue SystemCallError
    raise if Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline

    sleep 0.01
    retry
  end
end

def subscribe(path, count)
  connect(path).tap do |socket|
    (0...count).each_slice(1000) do |slice|
      socket.write(command("PSUBSCRIBE", *slice.map { |n| "room:#{n}:*" }))
      slice.size.times { 6.times { socket.gets } } # *3, $10, psubscribe, $n, the pattern, its number
    end
  end
end

require "etc"
patterns, publishes = ARGV.map { |argument| Integer(argument) }
Dir.mktmpdir("brokerd-bench-") do |folder|
  path = File.join(folder, "redis.sock")
  pid = Process.spawn("redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no", "--dir", folder, out: File::NULL)
  begin
    listener = subscribe(path, patterns)
    publisher = connect(path)
    before = processor_time(pid)
    publishes.times do |n|
      publisher.write(command("PUBLISH", "user:#{n}", "x" * 64))
      raise "unexpected" unless publisher.gets == ":0\r\n"
    end
    puts JSON.generate(us_per_publish: (processor_time(pid) - before) / publishes)
    listener.close
  ensure
    Process.kill("TERM", pid)
    Process.wait(pid)
  end
end
