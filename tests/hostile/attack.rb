# frozen_string_literal: true

# Hostile clients. Run by itself, so that it competes with nobody for an interpreter lock:
#   ruby attack.rb KIND PORT COUNT SECONDS [SEED]
# Prints "ready" once all connections stand, and at the end, or at SIGTERM, what became of them.
require "json"
require "socket"

# Many connections that all do the same harm, served by one loop that never blocks.
class Attack
  KEY = "dGhlIHNhbXBsZSBub25jZQ=="
  MASK = "\0\0\0\0" # a mask of zeros leaves the payload as it is
  PING = "\x89\x84#{MASK}ping".b.freeze
  TINY = "\x81\x81#{MASK}x".b.freeze
  FRAGMENT = "\x00\x81#{MASK}x".b.freeze
  EMPTY_FRAGMENT = "\x00\x80#{MASK}".b.freeze
  BLOCK = 64 * 1024

  # What each kind does after its handshake: the path, the bytes sent first, and those sent again and again.
  FLOODS = {
    "ping_flood" => ["/echo", "", PING],
    "tiny_frame_flood" => ["/echo", "", TINY],
    "fragment_flood" => ["/echo", "\x01\x80#{MASK}".b, FRAGMENT],
    "empty_fragment_flood" => ["/echo", "\x01\x80#{MASK}".b, EMPTY_FRAGMENT],
    "never_read" => ["/sub", "", nil],
    "half_open" => ["/echo", "", nil]
  }.freeze

  def initialize(kind, port, count, seconds)
    @kind, @port, @count, @seconds = kind, port, count, seconds
    @ended = 0
  end

  def run
    @sockets = Array.new(@count) { connect }
    puts "ready"
    $stdout.flush
    deadline = now + @seconds
    trap("TERM") { deadline = 0 }
    step while now < deadline && !@sockets.empty?
    puts JSON.generate(kind: @kind, opened: @count, ended_by_server: @ended, sent_bytes: @sent.to_i)
  end

  private

  def now
    Process.clock_gettime(Process::CLOCK_MONOTONIC)
  end

  def connect
    socket = Socket.new(:INET, :STREAM)
    socket.setsockopt(:SOCKET, :RCVBUF, 4096) if @kind == "never_read"
    socket.connect(Socket.sockaddr_in(@port, "127.0.0.1"))
    path, first, again = FLOODS[@kind] || ["/echo", "", nil]
    @again = again && (again * (BLOCK / again.bytesize))
    socket.write(request(path) + first) unless @kind == "slow_handshake"
    answered(socket) if FLOODS.key?(@kind) && @kind != "never_read"
    slow_frame(socket) if @kind == "slow_frame"
    socket
  end

  def request(path)
    "GET #{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" \
      "Sec-WebSocket-Key: #{KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n".b
  end

  def answered(socket)
    raise "no answer" unless socket.wait_readable(30) && socket.recv(12, Socket::MSG_PEEK) == "HTTP/1.1 101"
  end

  # Announces 200 KiB.
  def slow_frame(socket)
    answered(socket)
    socket.write([0x82, 0xff, 200 * 1024].pack("CCQ>") + MASK)
  end

  def step
    case @kind
    when "never_read", "half_open" then IO.select(nil, nil, nil, 0.05)
    when "slow_handshake" then trickle(request("/echo"))
    when "slow_frame" then trickle("x" * 1_000_000)
    else flood
    end
    drop_ended if @kind != "never_read"
  end

  # One byte of each, a few times a second.
  def trickle(text)
    @sockets.each { |socket| send_some(socket, text[@at.to_i]) if text[@at.to_i] }
    @at = @at.to_i + 1
    IO.select(nil, nil, nil, 0.2)
  end

  def flood
    _, writable = IO.select(nil, @sockets, nil, 0.1)
    (writable || []).each { |socket| send_some(socket, @again) }
  end

  # Only whole frames count in a flood: what did not go out goes out next time.
  def send_some(socket, bytes)
    @rest ||= {}
    bytes = @rest.delete(socket) || bytes
    sent = socket.write_nonblock(bytes, exception: false)
    return @rest[socket] = bytes if sent == :wait_writable

    @sent = @sent.to_i + sent
    @rest[socket] = bytes.byteslice(sent..) if sent < bytes.bytesize
  rescue SystemCallError
    forget(socket)
  end

  def drop_ended
    readable, = IO.select(@sockets, nil, nil, 0)
    (readable || []).each { |socket| forget(socket) if ended?(socket) }
  end

  # A flood reads nothing, or next to nothing: only whether it is over. The rest throws away what comes.
  def ended?(socket)
    flag = @again ? Socket::MSG_PEEK : 0
    socket.recv_nonblock(1000, flag, exception: false).nil?
  rescue SystemCallError
    true
  end

  def forget(socket)
    @sockets.delete(socket)
    socket.close
    @ended += 1
  end
end

# Connections that are dropped anywhere in the handshake or in a frame.
class Drops
  FRAMES = [Attack::PING, Attack::TINY, "\x81\xfe\x03\xe8#{Attack::MASK}#{'y' * 1000}", "\x01\x83#{Attack::MASK}abc\x80\x83#{Attack::MASK}def",
            [0x82, 0xff, 100_000].pack("CCQ>") + Attack::MASK + ("z" * 5000), "\x88\x82#{Attack::MASK}\x03\xe8", "\x83\x80#{Attack::MASK}",
            "\x81\x82#{Attack::MASK}\xc3\x28"].map(&:b).freeze

  def initialize(port, count, seed)
    @port, @count, @random = port, count, Random.new(seed)
    @answered = 0
  end

  def run
    puts "ready"
    $stdout.flush
    @count.times { one }
    puts JSON.generate(kind: "drops", opened: @count, upgraded: @answered)
  end

  private

  def one
    socket = TCPSocket.new("127.0.0.1", @port)
    path = %w[/echo /sub /pub].sample(random: @random)
    kind = @random.rand(10)
    head = kind.zero? ? stream(path) : websocket(path)
    case @random.rand(4)
    when 0 then socket.write(head.byteslice(0, @random.rand(head.bytesize)))
    when 1 then socket.write(head + part_of_frames) # with the handshake
    else after_the_answer(socket, head)
    end
    leave(socket)
  rescue SystemCallError
    socket&.close
  end

  def after_the_answer(socket, head)
    socket.write(head)
    @answered += 1 if socket.wait_readable(10) && socket.readpartial(@random.rand(1..400)).start_with?("HTTP/1.1 101")
    socket.write(part_of_frames)
  rescue EOFError
    nil
  end

  def part_of_frames
    all = Array.new(@random.rand(4)) { FRAMES.sample(random: @random) }.join
    all.byteslice(0, @random.rand(all.bytesize + 1))
  end

  def leave(socket)
    case @random.rand(3)
    when 0 then socket.setsockopt(Socket::SOL_SOCKET, Socket::SO_LINGER, [1, 0].pack("ii"))
    when 1 then socket.shutdown(Socket::SHUT_WR)
    end
    socket.close
  end

  def websocket(path)
    "GET #{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" \
      "Sec-WebSocket-Key: #{Attack::KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n".b
  end

  def stream(path)
    "GET #{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n".b
  end
end

if $PROGRAM_NAME == __FILE__
  kind, port, count, seconds, seed = ARGV
  attack = kind == "drops" ? Drops.new(port.to_i, count.to_i, (seed || 1).to_i) : Attack.new(kind, port.to_i, count.to_i, seconds.to_f)
  attack.run
end
