# frozen_string_literal: true

module Faults
  # The broker, the proxy with a route for each process, the server processes with their WebSockets, four publishers:
  # two in server processes, a Ruby process that goes on, and a series of short-lived ones.
  class Plant
    APP = File.expand_path("../app/config.ru", __dir__)
    INSIDE = 2 # publishers in server processes

    attr_reader :broker, :proxy, :servers, :checker, :routes, :lasts

    def initialize(options, folder)
      @options = options
      @folder = folder
      @parts = []
      @network = options.network ? keep(Network.new) : nil
      @transport = Transport.new(folder, options.transport, host: @network ? @network.host : "127.0.0.1")
      start_broker
      start_proxy
      start_servers
      start_checker
      @observer = keep(Observer.new(folder, @routes.last.first)) if options.transport == "ipc"
    rescue StandardError
      stop
      raise
    end

    # What the observer of ids found; nil where there is none.
    def observed
      @observer&.finish(@broker.stats["head"])
    end

    def start_publishers
      rate = @options.rate / 4
      INSIDE.times { |n| control(n, "start/#{n}/#{rate}") }
      @outside = [keep(LongPublisher.new(@folder, 2, rate, env(@options.processes))),
                  keep(ShortPublishers.new(@folder, 3, rate, env(@options.processes + 1)))]
    end

    # All of them end, everything that they published is answered, and one last message of each is published.
    def finish_publishers(limit)
      @lasts = Array.new(INSIDE) { |n| control(n, "finish", limit)["result"] }
      @outside.each { |publisher| publisher.finish(limit) }
      @lasts += @outside.map(&:last)
      close
    end

    # @return [Integer] bytes of one message in the ring
    def record_size
      (40 + CHANNEL.size + 9 + 7) / 8 * 8
    end

    # Waits until every client has everything, or the limit is over.
    # @return [Hash] what ws_check found
    def drain(limit)
      @checker.tell("expect #{@lasts.join(' ')}")
      begin
        @checker.wait_for(/^result/, limit)
      rescue RuntimeError
        @checker.tell("report")
      end
      JSON.parse(@checker.wait_for(/^result/, 60).delete_prefix("result "))
    end

    def reports
      @reports ||= Array.new(@servers.size) { |n| control(n, "report", 30) }
    end

    def unsure
      @outside.sum(&:unsure) + reports.sum { |report| report["stats"]["publishes_unsure"] }
    end

    def control(number, path, limit = Support::Deadline::LIMIT)
      response = Net::HTTP.start("127.0.0.1", @servers[number].port, read_timeout: limit) { |http| http.get("/#{path}") }
      response.is_a?(Net::HTTPOK) ? JSON.parse(response.body) : raise("#{path}: #{response.code} #{response.body[0, 500]}")
    end

    # Who can be stopped, by name.
    def processes
      found = @servers.each_with_index.to_h { |server, n| ["process #{n}", server.pid] }
      found["observer"] = @observer.pid if @observer
      @outside.each_with_index { |publisher, n| publisher.pids.each { |pid| found["publisher #{n + INSIDE}"] = pid } }
      found
    end

    def cut_network(seconds)
      @network&.down(seconds)
    end

    def network_figures(report, cuts)
      return unless @network

      report.figure("packets lost", @network.lost)
      report.figure("network taken down", cuts)
    end

    # Lines that tell of something that must not be.
    def complaints
      logs = @servers.map { |server| [server.log, /ERROR|FATAL|unsure|missed|\[BUG\]/] } << [@broker.log, /moved aside|new epoch|error|gap/i]
      logs.flat_map { |text, bad| text.lines(chomp: true).grep(bad) }
    end

    def stop
      @parts.reverse_each do |part|
        part.stop
      rescue StandardError => e
        warn "stopping #{part.class}: #{e.message}"
      end
    end

    private

    def keep(part)
      @parts << part
      part
    end

    # One more message for each, when all is calm and answered: what is missing before it shows.
    def close
      @lasts.map!(&:succ).each_with_index { |last, n| @broker.ctl("publish", CHANNEL, format("%x%08x", n, last)) }
    end

    def start_broker
      options = ["--journal-size", @options.journal_size, *@transport.options]
      @broker = keep(Broker.new(@folder, listen: @transport.listen, options: options, env: @transport.env,
                                         prefix: @network ? @network.prefix : []))
    end

    def start_proxy
      @routes = Array.new(@options.processes + (@options.transport == "ipc" ? 3 : 2)) { |n| @transport.route(n) }
      @proxy = keep(PipeProgram.new("fault_proxy", @options.seed, *@routes.map(&:last)))
      @proxy.wait_for("ready", 10)
    end

    def env(route)
      { "BROKERD_URL" => @routes[route].first, "BROKERD_SHUTDOWN_TIMEOUT" => "120", **@transport.env }
    end

    def start_servers
      app = "eval(File.read(#{APP.dump}), binding, #{APP.dump})"
      @servers = Array.new(@options.processes) do |n|
        Thread.new { Support::Server.new(@folder, app, url: @routes[n].first, env: env(n)) }
      end.map { |thread| keep(thread.value) }
      @servers.each_index { |n| control(n, "watch") } unless @options.script == "chaos"
    end

    def start_checker
      @checker = keep(PipeProgram.new("ws_check", @options.clients, *@servers.map(&:port)))
      @checker.wait_for("open", 60)
      Support::Deadline.wait_for("all subscriptions", 60) do
        @broker.ctl("publish", CHANNEL, "f00000001")
        @checker.find("ready")
      end
    end
  end
end
