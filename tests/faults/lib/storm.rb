# frozen_string_literal: true

module Faults
  # What happens to a plant while it works; all drawn from the seed.
  class Storm
    CUT_EVERY = 1.0
    KILL_EVERY = 10.0
    STOPPED_AT_ONCE = 2
    STOP_LONGEST = 20.0

    attr_reader :counts

    def initialize(plant, options, first = nil)
      @plant = plant
      @random = Random.new(options.seed)
      @seconds = options.seconds
      @links = options.transport != "ipc"
      @counts = { cuts: 0, kills: 0, restarts: 0, stops: 0, stopped_seconds: 0.0, holds: 0, network_cuts: 0 }
      @stopped = {}
      @first = first
    end

    # Rages for the time given; the block is called about 20 times a second.
    def rage
      @start = now
      @cut_at = @start + CUT_EVERY
      @kill_at = @start + [KILL_EVERY, @seconds / 3.0].min
      @stop_at = @start + 0.5
      @restart_at = @start + 6 + (@random.rand * 10)
      @hold_at = @start + 3
      @down_at = @start + 7
      while now - @start < @seconds
        turn
        yield now - @start
        sleep 0.05
      end
      calm
      @plant.proxy.tell("hold 0 2000") # outlasts the storm: a process that publishes cannot be reached at the end
    end

    def calm
      @stopped.keys.each { |name| continue(name) }
      @plant.proxy.tell("calm")
    end

    private

    def now
      Support::Deadline.now
    end

    def turn
      @stopped.each { |name, (until_, _)| continue(name) if now >= until_ }
      cut if now >= @cut_at
      kill if now >= @kill_at
      restart if now >= @restart_at
      stop if now >= @stop_at
      hold if @links && now >= @hold_at
      network if now >= @down_at
    end

    def cut
      @cut_at += CUT_EVERY
      @plant.proxy.tell("cut #{@random.rand(@plant.routes.size)}")
      @counts[:cuts] += 1
    end

    # A broker that is stopped is killed as it is, or when it goes on.
    def kill
      return if @stopped.key?("broker") && (@spare ||= @random.rand(2)) == 1

      @spare = nil
      @kill_at += KILL_EVERY
      @stopped.delete("broker")
      @plant.broker.kill
      sleep @random.rand * 0.5
      @plant.broker.start
      @counts[:kills] += 1
    end

    # A planned one: what was accepted is answered, what is queued is sent.
    def restart
      return if @stopped.key?("broker")

      @restart_at += 8 + (@random.rand * 16)
      @plant.broker.stop
      sleep @random.rand * 0.5
      @plant.broker.start
      @counts[:restarts] += 1
    end

    def stop
      @stop_at = now + 0.5 + (@random.rand * 3)
      return if @stopped.size >= STOPPED_AT_ONCE

      targets = { "broker" => @plant.broker.pid, **@plant.processes }
      longest = [STOP_LONGEST, @seconds / 3.0].min
      name, length = targets.keys[@random.rand(targets.size)], 0.1 * ((longest / 0.1)**@random.rand)
      name, length, @first = @first, longest, nil if @first
      return if @stopped.key?(name) || !signal("STOP", targets[name])

      @stopped[name] = [now + length, targets[name]]
      @counts[:stops] += 1
      @counts[:stopped_seconds] += length
    end

    def continue(name)
      _, pid = @stopped.delete(name)
      signal("CONT", pid)
    end

    # A partition of one route, and from then on another delay.
    def hold
      @hold_at = now + 2 + (@random.rand * 6)
      route = @random.rand(@plant.routes.size)
      @plant.proxy.tell("hold #{route} #{@random.rand(4000)}")
      @plant.proxy.tell("delay #{@random.rand(@plant.routes.size)} #{@random.rand(40)}")
      @counts[:holds] += 1
    end

    def network
      @down_at = now + 8 + (@random.rand * 8)
      @counts[:network_cuts] += 1 if @plant.cut_network(@random.rand * 4)
    end

    def signal(name, pid)
      Process.kill(name, pid)
      true
    rescue Errno::ESRCH
      false
    end
  end
end
