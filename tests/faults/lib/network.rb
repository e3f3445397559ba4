# frozen_string_literal: true

module Faults
  # A network of its own for the broker, behind a veth pair. Both ends shape what they send with a token bucket
  # whose queue is so short that bursts lose packets and wait; netem adds loss and delay where the kernel has it.
  # Taking the pair down is a partition: packets are lost, and nobody is told. Needs root.
  class Network
    SHAPE = "tbf rate 60mbit burst 16kb limit 48kb"
    LOSSY = "netem loss 1% delay 3ms 2ms"

    def initialize
      @name = "faults#{Process.pid}"
      @device = "fa#{Process.pid}"
      ip("netns add #{@name}")
      ip("link add #{@device} type veth peer name inner netns #{@name}")
      ip("addr add #{subnet}.2/30 dev #{@device}")
      ip("link set #{@device} up")
      inside("ip addr add #{host}/30 dev inner")
      inside("ip link set inner up")
      inside("ip link set lo up")
      shape
    end

    # Where processes find the broker.
    def host
      "#{subnet}.1"
    end

    def prefix
      ["ip", "netns", "exec", @name]
    end

    def down(seconds)
      ip("link set #{@device} down")
      @thread&.join
      @thread = Thread.new do
        sleep seconds
        ip("link set #{@device} up")
      end
    end

    # Packets that the two ends dropped.
    def lost
      [`tc -s qdisc show dev #{@device}`, `#{prefix.join(' ')} tc -s qdisc show dev inner`]
        .sum { |text| text.scan(/dropped (\d+)/).flatten.map(&:to_i).max.to_i }
    end

    def stop
      @thread&.join
      system("ip link del #{@device}")
      system("ip netns del #{@name}")
    end

    private

    # So that two runs may go on side by side.
    def subnet
      "10.213.#{Process.pid % 256}"
    end

    def shape
      kind = system("tc qdisc add dev #{@device} root #{LOSSY}", err: File::NULL) ? LOSSY : SHAPE
      system("tc qdisc replace dev #{@device} root #{kind}") && inside("tc qdisc replace dev inner root #{kind}")
    end

    def ip(words)
      system("ip #{words}") or raise "ip #{words} failed"
    end

    def inside(words)
      system("#{prefix.join(' ')} #{words}") or raise "#{words} failed"
    end
  end
end
