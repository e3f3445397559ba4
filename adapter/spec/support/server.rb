# frozen_string_literal: true

require "fileutils"
require "rbconfig"

module Support
  # A real Rack server that runs the application given as the text of a config.ru.
  #
  # The application may call `report("line")`; the spec sees it with {#reports}. All servers get the same
  # prelude: the library, the reporting function and nothing else.
  class Server
    LIB = File.expand_path("../../lib", __dir__)

    PRELUDE = <<~RUBY
      # frozen_string_literal: true
      require "brokerd"
      module Kernel
        def report(line)
          File.write(ENV.fetch("REPORT"), "\#{line}\\n", mode: "a")
        end
      end
    RUBY

    attr_reader :port

    # Not every Gemfile of the matrix has every server.
    def self.installed?(kind)
      Gem.loaded_specs.key?(kind.to_s)
    end

    # @param kind [Symbol] :puma, :unicorn, :falcon, ...
    # @param port [Integer, nil] nil one that is free
    def initialize(folder, app, kind: :puma, url: nil, env: {}, workers: 0, preload: false, threads: 5, config: nil, bind: nil,
                   arguments: [], prelude: PRELUDE, versions: nil, port: nil)
      @folder = folder
      @port = port || Ports.free
      @reports = File.join(folder, "reports-#{@port}")
      FileUtils.touch(@reports)
      @rackup = File.join(folder, "config-#{@port}.ru")
      File.write(@rackup, "#{prelude}\n#{app}")
      @bind = bind
      @options = { workers: workers, preload: preload, threads: threads, config: config, arguments: arguments, versions: versions }
      @env = { "REPORT" => @reports, "BROKERD_URL" => url, "RACK_ENV" => "production" }.merge(env)
      @child = Child.new(@env, command(kind), log: File.join(folder, "server-#{@port}.log"), chdir: folder)
      await
    end

    def address
      @bind || @port
    end

    def pid
      @child.pid
    end

    def log
      @child.output
    end

    def stop(signal = "TERM", limit: 20)
      @child.stop(signal, limit: limit)
    end

    def signal(name)
      @child.signal(name)
    end

    def alive?
      @child.alive?
    end

    def wait(limit = Deadline::LIMIT)
      @child.wait(limit)
    end

    def reports
      File.read(@reports).lines(chomp: true)
    end

    # Waits until a line matches, and returns it.
    def report(pattern, limit = Deadline::LIMIT)
      wait_for("a report of #{pattern.inspect}", limit) { reports.find { |line| pattern === line } }
    end

    # Waits, and tells what there was if it does not come.
    def wait_for(what, limit = Deadline::LIMIT, &block)
      Deadline.wait_for(what, limit, &block)
    rescue RuntimeError => e
      raise "#{e.message}\nreports: #{reports.last(20)}\nlog: #{log[-3000..] || log}"
    end

    private

    def await
      Deadline.wait_for("the server", 30) do
        raise "the server ended: #{log}" unless @child.alive?

        (@bind ? UNIXSocket.new(@bind) : TCPSocket.new("127.0.0.1", @port)).close
        true
      rescue SystemCallError
        false
      end
    end

    def command(kind)
      [RbConfig.ruby, "-I", LIB, *public_send(:"#{kind}_command")]
    end

    public

    def puma_command
      threads = @options[:threads]
      threads = "0:#{threads}" unless threads.is_a?(String)
      command = [Gem.bin_path("puma", "puma"), "-C", @options[:config] ? config_file : "-", "-b", @bind ? "unix://#{@bind}" : "tcp://127.0.0.1:#{@port}",
                 "-t", threads, "-e", "production"]
      command += ["-w", @options[:workers].to_s] if @options[:workers].positive?
      command << "--preload" if @options[:preload]
      command + @options[:arguments] + [@rackup]
    end

    def unicorn_command
      text = "worker_processes #{[@options[:workers], 1].max}\nlisten '127.0.0.1:#{@port}'\npreload_app #{@options[:preload]}\ntimeout 60\n"
      [Gem.bin_path("unicorn", "unicorn"), "-E", "none", "-c", config_file(text), @rackup]
    end

    def pitchfork_command
      text = "worker_processes #{[@options[:workers], 1].max}\nlisten '127.0.0.1:#{@port}'\n"
      [Gem.bin_path("pitchfork", "pitchfork"), "-E", "none", "-c", config_file(text), @rackup]
    end

    def falcon_command
      [Gem.bin_path("falcon", "falcon"), "serve", "--bind", "http://127.0.0.1:#{@port}", "--count", [@options[:workers], 1].max.to_s,
       "--config", @rackup]
    end

    def config_file(text = @options[:config])
      File.join(@folder, "server-#{@port}.rb").tap { |path| File.write(path, text) }
    end
  end
end
