# frozen_string_literal: true

require "spec_helper"
require "support/embedded"

# Rounds of the twelve: EMBEDDED_ROUNDS=50 for a long look.
RSpec.describe "The application's own broker" do
  let(:app) { Support::Embedded.new(File.realpath(folder)).tap { |app| @app = app } }
  after do
    release
    @app&.stop
  end

  def plain_ruby(program, env: {}, chdir: folder, input: File::NULL, **options)
    log = File.join(folder, "program-#{SecureRandom.hex(4)}.log")
    env = Support::Embedded::PLAIN.merge(app.env, env)
    keep(Support::Child.new(env, [RbConfig.ruby, "-I", Support::Server::LIB, "-rbrokerd", "-e", program],
                            log: log, errors: "#{log}.err", chdir: chdir, input: input, **options))
  end

  def finished(child, limit = 30)
    child.wait(limit)
    child
  end

  def subscriber(channel)
    child = plain_ruby("Brokerd.subscribe(#{channel.inspect}) { |_, m| $stdout.syswrite(m + \"\\n\") }; " \
                       "sleep 0.01 until Brokerd.stats[:connected]; $stdout.syswrite(\"ready\\n\"); sleep")
    wait_for("the subscriber") { child.output.include?("ready") }
    child
  end

  def ctl(*arguments, env: {}, chdir: folder)
    env = Support::Embedded::PLAIN.merge("BROKERD_APP" => app.application).merge(env)
    Open3.capture2e(env, Support::Broker.binary("brokerctl"), *arguments, chdir: chdir)
  end

  describe "short-lived processes" do
    it "start it and deliver before they exit, without a word of warning" do
      first = finished(plain_ruby('Brokerd.publish("chat", "first")'))
      expect(first.status).to be_success
      expect(first.errors).not_to match(/WARN|ERROR/)
      hearer = subscriber("chat")
      finished(plain_ruby('Brokerd.publish("chat", "hi")'))
      wait_for("the message") { hearer.output.include?("hi") }
      output, status = ctl("publish", "chat", "from a shell")
      expect([output, status.success?]).to eq(["", true])
      wait_for("the message") { hearer.output.include?("from a shell") }
    end

    it "x=$(ruby ...) returns at once: the broker holds no descriptor of its starter" do
      env = Support::Embedded::PLAIN.merge(app.env, "LIB" => Support::Server::LIB, "RUBY" => RbConfig.ruby)
      command = %q(x=$("$RUBY" -I "$LIB" -rbrokerd -e 'p Brokerd.publish("a", "b")' 2>&1 3>&1); echo "got $x")
      output, status = Open3.capture2e(env, "sh", "-c", command)
      pid = app.pid # it lives on: nobody waited for its end
      expect(status).to be_success
      expect(output).to start_with("got true")
      pipes = Dir["/proc/#{pid}/fd/*"].map { |path| File.readlink(path) }.grep(/\Apipe:/)
      expect(pipes.tally.values.uniq - [2]).to eq([]) # its own have both ends here
      expect(File.readlink("/proc/#{pid}/cwd")).to eq("/")
    end

    it "say on standard error that no broker could be reached" do
      child = finished(plain_ruby('Brokerd.publish("a", "b")', env: { "BROKERD_URL" => "ipc://#{folder}/nobody", "BROKERD_SHUTDOWN_TIMEOUT" => "1" }))
      expect(child.errors).to match(%r{brokerd: 1 published messages were not answered .*ipc://#{folder}/nobody})
    end
  end

  # Each hears all, in one order, and says so.
  CROWD = <<~'RUBY'
    $stdout.sync = true
    mine, count, others = ENV["NAME"], 20, 12
    heard = Thread::Queue.new
    puts "loaded"
    $stdin.read
    Brokerd.subscribe("crowd") { |_, message| heard << message }
    Brokerd.publish("crowd", "up #{mine}")
    all = []
    all << heard.pop until all.include?("up #{mine}")
    puts "up"
    IO.for_fd(3).read
    Thread.new { count.times { |n| Brokerd.publish("crowd", "#{mine}:#{n}"); sleep 0.005 } }
    numbered = []
    while numbered.size < count * others
      message = heard.pop
      numbered << message unless message.start_with?("up")
      puts "begun" if numbered.size == 24
    end
    puts "done #{numbered.uniq.size} #{Digest::SHA256.hexdigest(numbered.join(","))}"
  RUBY

  def twelve
    first_read, first = IO.pipe
    go_read, go = IO.pipe
    children = Array.new(12) { |n| plain_ruby(CROWD, env: { "NAME" => n.to_s }, input: first_read, descriptors: { 3 => go_read }) }
    [first_read, go_read].each(&:close)
    wait_all(children, "loaded")
    first.close
    wait_all(children, "up")
    broker = app.pid
    go.close
    yield children, broker
    children.each { |child| finished(child, 60) }
    children.map { |child| child.output[/^done.*/] || raise("a process lost something: #{child.output}#{child.errors}") }
  end

  def wait_all(children, line)
    wait_for("twelve times #{line.inspect}", 60) do
      children.all? do |child|
        raise "a process ended: #{child.errors}" unless child.alive?

        child.output.include?(line)
      end
    end
  end

  rounds = Integer(ENV.fetch("EMBEDDED_ROUNDS", "5"))
  it "twelve processes at one barrier give one broker and lose nothing, anew, over a stale socket, and when it is killed (#{rounds} rounds)" do
    rounds.times do |round|
      kind = %i[killed_meanwhile stale anew][round % 3]
      kind == :anew ? app.stop : app.kill
      expect(File.socket?(app.socket)).to be(true) if kind == :stale
      results = twelve do |children, broker|
        next unless kind == :killed_meanwhile

        wait_for("the middle", 30) { children.any? { |child| child.output.include?("begun") } }
        Process.kill("KILL", broker)
      end
      expect(app.pids.size).to be <= 1
      expect(results.uniq).to match([/\Adone 240 /]), "round #{round}, #{kind}: #{results.tally}"
    end
  end

  describe "ctrl-C" do
    RACKUP = <<~RUBY
      use Brokerd::Middleware
      HANDLER = Object.new
      def HANDLER.on_open(client) = client.subscribe("chat")
      def HANDLER.on_message(client, data) = client.publish("chat", data)
      run ->(env) { env["rack.upgrade"] = HANDLER; [200, { "content-type" => "text/plain" }, []] }
    RUBY

    def puma(workers)
      start_server(RACKUP, url: nil, env: app.env, workers: workers)
    end

    def interrupt(server)
      Process.kill("INT", -server.pid) # as the terminal does: to the whole group
      server.wait(20)
      expect(server.log).not_to match(/Error|Traceback|broken/i)
    end

    def heard?(client)
      client.receive(0.2)
    rescue RuntimeError # nothing within the time
      false
    end

    it "ends Puma and, when nobody else uses it, its broker; another Puma of the application keeps it" do
      first, second = puma(2), puma(0)
      here, there = websocket(server: first), websocket(server: second)
      pid = app.pid
      wait_for("both to be connected") do
        here.text("hello") # again, until the other one's subscription stands
        heard?(there)
      end
      interrupt(first)
      there.text("still there")
      wait_for("the message") { there.receive == "still there" }
      expect(app.pids).to eq([pid])
      interrupt(second)
      wait_for("the broker's end", 20) { app.pids.empty? }
      expect(app.log.lines.last).to include("ended")
      expect(File.exist?(app.socket)).to be(false)
    end
  end

  it "a broker of another protocol version is named, with what to do, by Ruby and by brokerctl" do
    finished(plain_ruby('Brokerd.publish("makes", "the folder")'))
    app.stop
    listener = UNIXServer.new(app.socket)
    later = Thread.new { loop { speak_version_nine(listener.accept) } }
    child = finished(plain_ruby('Brokerd.publish("a", "b")', env: { "BROKERD_SHUTDOWN_TIMEOUT" => "1" }))
    expect(child.errors).to match(/another version of the protocol: both sides need the same brokerd/)
    expect(child.errors).to match(/1 published messages were not answered/)
    output, status = ctl("ping")
    expect(status.exitstatus).to eq(1)
    expect(output).to match(/version 9.*install the same version of both/)
  ensure
    later&.kill
    listener&.close
  end

  # As far as a broker of the future speaks to us: hello, then the range of versions that it knows.
  def speak_version_nine(socket)
    Thread.new do
      socket.write("\0SP\0\0\x31\0\0".b)
      socket.read(8)
      while (head = socket.read(9))
        id = socket.read(head.unpack1("x Q>"))[0, 4]
        reply = id + [9, 1, 2, 0, 0, 0, 0, 9 | 9 << 8].pack("CCCCL<Q<Q<Q<")
        socket.write([1, reply.bytesize].pack("CQ>") + reply)
      end
    rescue SystemCallError
      nil
    end
  end

  describe "the program" do
    it "BROKERD_BIN names it" do
      own = File.join(folder, "broker-of-my-own")
      FileUtils.cp(Support::Broker.binary("brokerd"), own)
      finished(plain_ruby('Brokerd.publish("a", "b")', env: { "BROKERD_BIN" => own }))
      expect(File.readlink("/proc/#{app.pid}/exe")).to eq(File.realpath(own))
    end

    it "has no secret: one that is configured for a broker elsewhere does no harm" do
      secret = File.join(folder, "secret").tap { |path| File.write(path, SecureRandom.hex(32), perm: 0o600) }
      child = finished(plain_ruby('Brokerd.publish("a", "b")', env: { "BROKERD_SECRET_FILE" => secret }))
      expect(child.errors).not_to match(/WARN|not answered/)
      expect(ctl("ping", env: { "BROKERD_SECRET_FILE" => secret })[1]).to be_success
    end

    it "one that does not start is logged once, with its file and the setting" do
      child = finished(plain_ruby('Brokerd.publish("a", "b"); sleep 2.5', env: { "BROKERD_BIN" => "#{folder}/absent", "BROKERD_SHUTDOWN_TIMEOUT" => "1" }))
      expect(child.errors.scan(/broker did not start: No such file.*#{folder}\/absent.*BROKERD_BIN/).size).to eq(1)
      expect(child.errors).to match(/1 published messages were not answered/)
    end

    it "one that dies is started again by the next reconnect" do
      hearer = subscriber("chat")
      app.kill
      again = app.pid
      finished(plain_ruby('Brokerd.publish("chat", "after its death")'))
      wait_for("the message") { hearer.output.include?("after its death") }
      expect(app.pids).to eq([again])
    end
  end

  describe "which socket it is" do
    # Ruby's answer and brokerctl's, which is in its error when nobody listens.
    def both(env, chdir)
      env = { "BROKERD_APP" => nil }.merge(env)
      ruby = finished(plain_ruby("print Brokerd::Embedded.socket", env: env, chdir: chdir)).output
      message, = ctl("ping", "--timeout", "0.3", env: env, chdir: chdir)
      [ruby, message[%r{ipc://(\S+\.sock)}, 1]]
    end

    def socket(of)
      [Support::Embedded.socket(of)] * 2
    end

    before do
      @top = File.realpath(folder)
      FileUtils.mkdir_p(File.join(@top, "app/lib/deep"))
      FileUtils.mkdir_p(File.join(@top, "plain/sub"))
      FileUtils.mkdir_p(File.join(@top, "real"))
      FileUtils.touch([File.join(@top, "app/Gemfile"), File.join(@top, "real/gems.rb"), File.join(@top, "real/Gemfile.other")])
      File.symlink(File.join(@top, "real/Gemfile.other"), File.join(@top, "plain/Gemfile.link"))
      File.symlink(File.join(@top, "app"), File.join(@top, "link"))
    end

    it "is that of the Gemfile's folder, also from a folder below and through a link" do
      expect(both({}, File.join(@top, "app"))).to eq(socket("#{@top}/app"))
      expect(both({}, File.join(@top, "app/lib/deep"))).to eq(socket("#{@top}/app"))
      expect(both({}, File.join(@top, "link/lib"))).to eq(socket("#{@top}/app"))
      expect(both({}, File.join(@top, "real"))).to eq(socket("#{@top}/real"))
    end

    it "is that of the current folder without a Gemfile" do
      expect(both({}, File.join(@top, "plain/sub"))).to eq(socket("#{@top}/plain/sub"))
    end

    it "BUNDLE_GEMFILE names the Gemfile, absolute or relative, and a link to it is not followed" do
      expect(both({ "BUNDLE_GEMFILE" => "#{@top}/app/Gemfile" }, @top)).to eq(socket("#{@top}/app"))
      expect(both({ "BUNDLE_GEMFILE" => "Gemfile" }, "#{@top}/app")).to eq(socket("#{@top}/app"))
      expect(both({ "BUNDLE_GEMFILE" => "#{@top}/plain/Gemfile.link" }, @top)).to eq(socket("#{@top}/plain"))
      expect(both({ "BUNDLE_GEMFILE" => "#{@top}/no/Gemfile" }, "#{@top}/app")).to eq(socket("#{@top}/app"))
    end

    it "BROKERD_APP replaces the path" do
      expect(both({ "BROKERD_APP" => "shop" }, "#{@top}/app")).to eq(socket("shop"))
    end
  end

  describe "the folder of the sockets, for another user" do
    before do
      skip("only root can be another user") unless Process.uid.zero?
      @uid = rand(60_000..64_000) until @uid && !File.symlink?(sockets) && !File.exist?(sockets)
      skip("another user cannot read this checkout") unless as_user("true")[1].success? && as_user("test", "-r", "#{Support::Server::LIB}/brokerd.rb")[1].success?
    end

    after { FileUtils.rm_rf(sockets) if @uid }

    let(:theirs) { Support::Embedded.new("/", @uid) }

    def sockets
      "/tmp/brokerd-#{@uid}"
    end

    def as_user(*command)
      env = Support::Embedded::PLAIN.merge(theirs.env)
      Open3.capture2e(env, "setpriv", "--reuid", @uid.to_s, "--regid", @uid.to_s, "--clear-groups", *command, chdir: "/")
    end

    def publish
      as_user(RbConfig.ruby, "-I", Support::Server::LIB, "-rbrokerd", "-e", 'Brokerd.publish("a", "b")')
    end

    def expect_refusal(reason)
      [publish, as_user(Support::Broker.binary("brokerctl"), "publish", "a", "b")].each do |output, status|
        expect(status.exitstatus).to eq(1)
        expect(output).to match(/#{sockets} holds the sockets .* #{reason}.*mode 0700.*(BROKERD_URL|--url)/)
      end
      expect(theirs.pids).to eq([])
    end

    it "is made, for that user alone" do
      output, status = publish
      expect(status).to be_success, output
      expect(File.stat(sockets).mode & 0o777).to eq(0o700)
      expect(theirs.files.map { |path| File.stat(path).mode & 0o077 & ~0o060 }.uniq).to eq([0])
    ensure
      theirs.stop
    end

    it "is refused when everybody may write to it" do
      Dir.mkdir(sockets)
      File.chown(@uid, @uid, sockets)
      File.chmod(0o777, sockets)
      expect_refusal("is open to other users")
    end

    it "is refused when somebody else made it" do
      Dir.mkdir(sockets, 0o700)
      expect_refusal("belongs to")
    end

    it "is refused when it is a symbolic link" do
      own = File.join("/tmp", "brokerd-spec-#{SecureRandom.hex(4)}")
      Dir.mkdir(own, 0o700)
      File.chown(@uid, @uid, own)
      File.symlink(own, sockets)
      File.lchown(@uid, @uid, sockets)
      expect_refusal("is a symbolic link")
    ensure
      FileUtils.rm_rf(own)
    end
  end
end
