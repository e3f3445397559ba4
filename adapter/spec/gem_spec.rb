# frozen_string_literal: true

require "spec_helper"
require "rubygems/package"
require "support/embedded"

# The gem as a stranger gets it: built, installed into an empty GEM_HOME, used there.
RSpec.describe "The built gem" do
  ROOT = File.expand_path("../..", __dir__)

  before(:context) do
    @place = Dir.mktmpdir("brokerd-gem")
    @file = File.join(@place, "brokerd.gem")
    output, status = Open3.capture2e("gem", "build", "brokerd.gemspec", "-o", @file, chdir: ROOT)
    raise output unless status.success?
  end

  after(:context) { FileUtils.rm_rf(@place) }

  def contents
    Gem::Package.new(@file).contents
  end

  def packaged(path)
    File.read(File.join(ROOT, path))
  end

  describe "manifest" do
    it "has each source of the extension and the programs, and nothing that only the checkout needs" do
      sources = Dir.glob(%w[adapter/ext/*.{c,h} protocol/*.{c,h} brokerd/*.{c,h} brokerd/ctl/*.{c,h} adapter/lib/**/*.rb], base: ROOT)
      expect(sources - contents).to eq([])
      expect(contents).to include("adapter/ext/extconf.rb", "brokerd/extconf.rb", "exe/brokerd", "exe/brokerctl",
                                  "adapter/sig/brokerd.rbs", "LICENSE", "README.md", "SECURITY.md", "CHANGELOG.md")
      others = contents.grep_v(%r{\A(?:adapter/(?:ext/[^/]+\.(?:c|h|rb)|lib/.+\.rb|sig/.+\.rbs)|protocol/[^/]+\.[ch]|
                                      brokerd/(?:ctl/)?[^/]+\.(?:c|h|rb)|exe/\w+|docs/[^/]+\.md|README\.md|SECURITY\.md|CHANGELOG\.md|LICENSE)\z}x)
      expect(others).to eq([])
      expect(contents.grep(/\.(?:o|so|log|gem)\z|spec|test/)).to eq([])
    end

    it "has every header that a packaged source includes and every file that a packaged file requires" do
      headers = contents.grep(/\.h\z/).map { |path| File.basename(path) }
      missing = contents.grep(/\.[ch]\z/).flat_map { |path| packaged(path).scan(/^\s*#\s*include "([^"]+)"/).flatten } - headers
      expect(missing.uniq).to eq([])
      required = contents.grep(/\.rb\z|\Aexe/).flat_map { |path| packaged(path).scan(%r{^\s*require "(brokerd/[^"]+)"}).flatten }
      expect(required.uniq.map { |name| "adapter/lib/#{name}.rb" } - contents).to eq(["adapter/lib/brokerd/brokerd_ext.rb"])
    end

    it "has nothing that is not in the repository" do
      files, status = Open3.capture2("git", "ls-files", chdir: ROOT)
      skip("not a git checkout") unless status.success?
      expect(contents - files.lines(chomp: true)).to eq([])
    end
  end

  describe "what is missing when it is installed" do
    # The library is there, so it is hidden behind a macro.
    def configure(script, *hidden)
      flags = hidden.map { |name| "-D#{name}=there_is_no_#{name}" }.join(" ")
      Open3.capture2e(Support::Embedded::PLAIN, RbConfig.ruby, File.join(ROOT, script), "--with-cppflags=#{flags}", chdir: folder)
    end

    { "adapter/ext/extconf.rb" => { "event_base_new" => %w[libevent-dev libevent-devel libevent], "deflate" => %w[zlib1g-dev zlib-devel zlib],
                                    "SSL_new" => %w[libssl-dev openssl-devel openssl@3] },
      "brokerd/extconf.rb" => { "evhttp_new" => %w[libevent-dev libevent-devel libevent],
                                "EVP_sha256" => %w[libssl-dev openssl-devel openssl@3] } }.each do |script, functions|
      functions.each do |function, (debian, fedora, brew)|
        it "#{script} names the packages that bring #{function}" do
          output, status = configure(script, function)
          expect(status).not_to be_success
          expect(output).to include("apt install #{debian}", "dnf install #{fedora}", "brew install #{brew}", "brokerd: the ")
        end
      end
    end

    it "without liburing the extension is built all the same" do
      output, status = configure("adapter/ext/extconf.rb", "io_uring_queue_init")
      expect(status).to be_success
      expect(output).to include("apt install liburing-dev", "dnf install liburing-devel")
      expect(File.read(File.join(folder, "Makefile"))).not_to match(/-luring|LIBURING/)
    end

    it "without libnng the daemon alone is built" do
      _, status = configure("brokerd/extconf.rb", "nng_req0_open")
      expect(status).to be_success
      expect(File.read(File.join(folder, "Makefile"))).to match(/^all: brokerd$/)
    end
  end

  describe "installed into an empty GEM_HOME" do
    before(:context) do
      @home = File.join(@place, "home")
      install(@file)
      install(*%w[nio4r puma rack].map { |name| cached(name) })
    end

    def cached(name)
      spec = Gem.loaded_specs[name] || Gem::Specification.find_by_name(name)
      return spec.cache_file if File.file?(spec.cache_file)

      _, status = Open3.capture2e("gem", "fetch", name, "-v", spec.version.to_s, chdir: @place)
      raise "#{name} is neither in a cache nor to be had" unless status.success?

      File.join(@place, "#{spec.full_name}.gem")
    end

    def install(*files, home: @home, env: {})
      output, status = Open3.capture2e(environment(home).merge(env), "gem", "install", "--local", "--ignore-dependencies", "--no-document", *files)
      raise output unless status.success?
    end

    def environment(home = @home)
      Support::Embedded::PLAIN.merge("GEM_HOME" => home, "GEM_PATH" => home, "PATH" => "#{home}/bin:/usr/local/bin:/usr/bin:/bin",
                                     "BROKERD_APP" => nil, "BUNDLE_PATH" => nil)
    end

    def run(*command, home: @home, chdir: folder)
      Open3.capture2e(environment(home), *command, chdir: chdir)
    end

    it "brings both programs, of its own version, and leaves no objects behind" do
      %w[brokerd brokerctl].each do |name|
        expect(run(name, "--version")).to match(["#{name} #{Brokerd::VERSION}\n", be_success])
      end
      expect(Dir["#{@home}/gems/brokerd-*/**/*.o"]).to eq([])
    end

    APPLICATION = <<~RUBY
      require "brokerd"
      class Live
        def on_open(client)
          client.write("worker \#{Process.pid}")
          client.subscribe("chat")
        end
      end
      use Brokerd::Middleware
      run ->(env) { env["rack.upgrade"] = Live.new if env["rack.upgrade?"]; [200, {}, ["a page"]] }
    RUBY

    # Every process of this GEM_HOME.
    def processes
      Dir["/proc/[0-9]*"].filter_map do |path|
        next unless File.read("#{path}/environ").split("\0").include?("GEM_HOME=#{@home}")

        File.read("#{path}/cmdline").tr("\0", " ") unless File.read("#{path}/cmdline").empty?
      rescue SystemCallError
        next
      end
    end

    # Clients of one kind until both workers have one.
    def in_both_workers(kind)
      by_worker = {}
      wait_for("both workers", 30) do
        client = keep(kind.connect(@port))
        by_worker[client.receive[/worker (\d+)/, 1]] ||= client
        by_worker.size == 2
      end
      by_worker.values
    end

    def serving?
      TCPSocket.new("127.0.0.1", @port).close
      true
    rescue SystemCallError
      false
    end

    it "no broker configured, Puma with two workers: a push reaches WebSocket and SSE clients of both, and nothing is left within 20 s" do
      site = File.join(File.realpath(folder), "site")
      FileUtils.mkdir_p(site)
      FileUtils.touch(File.join(site, "Gemfile"))
      File.write(File.join(site, "config.ru"), APPLICATION)
      @port = Support::Ports.free
      puma = keep(Support::Child.new(environment, ["puma", "-w", "2", "-b", "tcp://127.0.0.1:#{@port}", "config.ru"], log: File.join(folder, "puma.log"), chdir: site))
      wait_for("Puma", 30) { puma.alive? ? serving? : raise(puma.output) }
      clients = in_both_workers(Support::WebSocket) + in_both_workers(Support::EventStream)

      Dir.mkdir(File.join(site, "below"))
      expect(run("brokerctl", "publish", "chat", "from a shell", chdir: File.join(site, "below"))).to match(["", be_success])
      clients.each { |client| expect(client.receive).to eq("from a shell") }
      _, status = run("ruby", "-rbrokerd", "-e", 'Brokerd.publish("chat", "from a script")', chdir: site)
      expect(status).to be_success
      clients.each { |client| expect(client.receive).to eq("from a script") }

      expect(processes.grep(%r{brokerd .*--listen ipc:///tmp/brokerd-#{Process.uid}/}).size).to eq(1)
      puma.signal("TERM")
      wait_for("the end of all processes", 20) { puma.alive? ? false : processes.empty? }
    ensure
      own = Support::Embedded.new(site)
      release
      own.stop
    end

    it "BROKERD_SKIP_DAEMON: the gem connects to a broker elsewhere, and says what to do where one is wanted here" do
      bare = File.join(@place, "bare")
      install(@file, home: bare, env: { "BROKERD_SKIP_DAEMON" => "1" })
      expect(Dir["#{bare}/extensions/**/bin/*"]).to eq([])
      output, status = run("brokerd", "--version", home: bare)
      expect([status.exitstatus, output]).to match([1, /brokerd: it was not built .*gem pristine brokerd.*BROKERD_BIN/m])
      output, status = run("brokerctl", "ping", home: bare)
      expect([status.exitstatus, output]).to match([1, /brokerctl: it was not built .*apt install libnng-dev.*gem pristine brokerd/m])
      program = 'Brokerd.config.shutdown_timeout = 1; Brokerd.publish("a", "b")'
      output, = run("ruby", "-rbrokerd", "-e", program, home: bare)
      expect(output).to match(/no broker can be started: .*gem pristine brokerd.*BROKERD_URL|no broker can be started: .*gem pristine brokerd/m)
      expect(output).to match(/1 published messages were not answered/)
      output, = Open3.capture2e(environment(bare).merge("BROKERD_URL" => broker.url), "ruby", "-rbrokerd", "-e", program)
      expect(output).not_to match(/ERROR|not answered/)
      Support::Embedded.new(File.realpath(folder)).files.each { |path| File.unlink(path) }
    end
  end
end
