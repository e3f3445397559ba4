# frozen_string_literal: true

module Support
  # What an example asks for is ended when the example ends.
  module Helpers
    attr_reader :folder

    def keep(thing)
      (@kept ||= []) << thing
      thing
    end

    def broker(*options)
      @lab_broker || (@broker ||= keep(Broker.new(folder, options)))
    end

    # A server of this example's own.
    def start_server(app, **options)
      keep(Server.new(folder, app, **{ url: broker.url }.merge(options)))
    end

    # The group's server.
    def lab
      @lab
    end

    # A WebSocket to the group's server: `methods` are those of its callback object, or `app` the whole code.
    def websocket(methods = nil, app: nil, server: lab, path: "/", headers: {}, **options)
      keep(WebSocket.connect(server.address, path, headers: lab_headers(methods, app).merge(headers), **options))
    end

    def event_stream(methods = nil, app: nil, server: lab, path: "/", headers: {}, **options)
      keep(EventStream.connect(server.address, path, headers: lab_headers(methods, app).merge(headers), **options))
    end

    def get(app = nil, server: lab, path: "/", headers: {}, **options)
      Http.get(server.address, path, headers: lab_headers(nil, app).merge(headers), **options)
    end

    def lab_headers(methods, app)
      app ||= Lab.upgrading(methods) if methods
      app ? { "X-Lab" => [app].pack("m0"), "X-Report" => report_file } : {}
    end

    def report_file
      @report_file ||= File.join(@lab_folder || folder, "reports-#{SecureRandom.hex(4)}")
    end

    # What this example's callbacks reported.
    def reports
      File.exist?(report_file) ? File.read(report_file).lines(chomp: true) : []
    end

    def wait_for_report(pattern, limit = Deadline::LIMIT)
      wait_for("a report of #{pattern.inspect}", limit) { reports.find { |line| pattern === line } }
    rescue RuntimeError => e
      raise "#{e.message}; there are: #{reports.last(20)}; log: #{lab&.log.to_s[-2000..] || lab&.log}"
    end

    def wait_for(what, limit = Deadline::LIMIT, &block)
      Deadline.wait_for(what, limit, &block)
    end

    def now
      Deadline.now
    end

    # Starts a Ruby program with the gem.
    def start_ruby(program, url: broker.url, env: {})
      log = File.join(folder, "program-#{SecureRandom.hex(4)}.log")
      keep(Child.new({ "BROKERD_URL" => url }.merge(env),
                     [RbConfig.ruby, "-I", Server::LIB, "-rbrokerd", "-e", program],
                     log: log, errors: "#{log}.err", chdir: folder))
    end

    # The same, and waits for its end.
    # @return [Child]
    def ruby(program, limit: 20, **options)
      start_ruby(program, **options).tap { |child| child.wait(limit) }
    end

    def release
      (@kept || []).reverse_each do |thing|
        case thing
        when Server, Broker, Child then thing.stop
        else thing.socket.close unless thing.socket.closed?
        end
      end
    end
  end
end
