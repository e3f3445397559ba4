# frozen_string_literal: true

require "erb"
require "net/http"
%w[deadline ports child broker].each { |file| require_relative "../../../adapter/spec/support/#{file}" }

module Bench
  ROOT = File.expand_path("../../..", __dir__)
  PEERS = File.join(ROOT, "tests/bench/peers")
  GEMS = File.join(ROOT, "vendor/bench")

  # A server under load: started on a free port, ended by its pid. `pids` are the processes whose CPU time
  # and memory count; each one's descendants count too.
  class Server
    attr_reader :port

    # @return [String, nil] why it cannot run here
    def self.missing; end

    def initialize(folder)
      @folder = folder
      @port = Support::Ports.free
      @children = []
      start
      await
    rescue StandardError
      stop
      raise
    end

    def pids
      @children.map(&:pid)
    end

    # What the load program must be told to get a broadcast.
    def arguments(transport)
      ["--url", "#{transport}://127.0.0.1:#{port}/sub", "--publish", "ws://127.0.0.1:#{port}/pub", *common]
    end

    def common
      ["--pids", pids.join(",")]
    end

    def url(path)
      "ws://127.0.0.1:#{port}#{path}"
    end

    def stop
      @children.reverse_each { |child| child.stop(stop_signal, limit: 20) }
    end

    private

    def stop_signal
      "TERM"
    end

    def run(name, env, *command)
      log = File.join(@folder, "#{name}.log")
      child = Support::Child.new(env, command, log: log, chdir: ROOT)
      @children << child
      child
    end

    def await
      Support::Deadline.wait_for("#{self.class.name} on port #{port}", 60) do
        raise "#{self.class.name} ended:\n#{@children.last.output[-2000..]}" unless @children.last.alive?

        TCPSocket.new("127.0.0.1", port).close
        true
      rescue SystemCallError
        false
      end
    end

    # Ruby with the peers' gems and without ours.
    def peer_environment
      ENV.keys.grep(/\A(?:BUNDLE|BUNDLER|GEM|RUBY)/).to_h { |name| [name, nil] }.merge("GEM_HOME" => GEMS, "GEM_PATH" => GEMS)
    end
  end

  # Puma with the gem, and a broker of its own with authentication and journal.
  class Brokerd < Server
    attr_reader :broker

    def self.missing
      "adapter/lib/brokerd/brokerd_ext.so is not built" unless File.exist?(File.join(ROOT, "adapter/lib/brokerd/brokerd_ext.so"))
    end

    def initialize(folder, settings = {})
      @settings = settings
      super(folder)
    end

    def pids
      super + [@broker.pid]
    end

    def stop
      super
      @broker&.stop
    end

    # The environment of a program that uses the same broker.
    def client_environment
      { "BROKERD_URL" => @broker.url, "BROKERD_SECRET_FILE" => @secret }
    end

    private

    def start
      @secret = File.join(@folder, "secret")
      File.write(@secret, "a secret for one run of the benchmarks", perm: 0o600)
      @broker = Support::Broker.new(@folder, ["--secret-file", @secret, "--journal", File.join(@folder, "journal"), "--log-level", "warn"])
      run("puma", client_environment.merge(@settings), RbConfig.ruby, "-I#{ROOT}/adapter/lib", Gem.bin_path("puma", "puma"),
          "-w", "0", "-t", "1:1", "-b", "tcp://127.0.0.1:#{port}?backlog=4096", "-e", "production", "-C", "-", "#{PEERS}/app.ru")
    end
  end

  # The same application on iodine, one process.
  class Iodine < Server
    def self.missing
      "the iodine gem (0.7) is not installed" if Dir[File.join(GEMS, "gems/iodine-0.7.*")].empty?
    end

    private

    def start
      run("iodine", peer_environment, RbConfig.ruby, File.join(GEMS, "bin/iodine"), "-b", "127.0.0.1", "-p", port.to_s,
          "-t", "1", "-w", "1", "#{PEERS}/app.ru")
    end

    def stop_signal
      "INT"
    end
  end

  # nginx with the nchan module, one worker.
  class Nchan < Server
    MODULE = "/usr/lib/nginx/modules/ngx_nchan_module.so"
    PROGRAM = "/usr/sbin/nginx"

    def self.missing
      return "nginx is not installed" unless File.executable?(PROGRAM)

      "the nchan module (libnginx-mod-nchan) is not installed" unless File.exist?(MODULE)
    end

    private

    def start
      config = File.join(@folder, "nginx.conf")
      template = ERB.new(File.read("#{PEERS}/nginx.conf.erb"))
      File.write(config, template.result_with_hash(dir: @folder, port: port, nchan_module: MODULE))
      run("nginx", {}, PROGRAM, "-c", config, "-p", @folder)
    end
  end

  # Action Cable on Puma, in-process adapter, as Rails sets it up for one process.
  class Cable < Server
    IDENTIFIER = '{\"channel\":\"BenchChannel\",\"hear\":1}'

    def self.missing
      return "the actioncable gem is not installed" if Dir[File.join(GEMS, "gems/actioncable-*")].empty?

      "the puma gem is not installed beside actioncable" if Dir[File.join(GEMS, "gems/puma-*")].empty?
    end

    def arguments(transport)
      raise "Action Cable has no event streams" unless transport == "ws"

      ["--url", url("/"), "--publish", url("/"), "--subprotocol", "actioncable-v1-json",
       "--send-on-open", %({"command":"subscribe","identifier":"#{IDENTIFIER}"}), "--send-after", "welcome", "--ready-when", "confirm_subscription",
       "--publish-format", %({"command":"message","identifier":"#{IDENTIFIER}","data":"{\\"action\\":\\"publish\\",\\"m\\":\\"%s\\"}"}),
       *common]
    end

    private

    def start
      run("cable", peer_environment, RbConfig.ruby, File.join(GEMS, "bin/puma"), "-w", "0", "-t", "1:4",
          "-b", "tcp://127.0.0.1:#{port}?backlog=4096", "-e", "production", "-C", "-", "#{PEERS}/cable.ru")
    end
  end
end
