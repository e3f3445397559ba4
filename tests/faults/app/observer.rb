# frozen_string_literal: true

# A peer of the broker that sees ids: a second reading of docs/protocol.md, without the gem. Wants the one channel that
# everybody publishes to, so that between two batches, two connections and two brokers every id must come, or be in a
# GAP that begins right behind the last one. Whatever happens to the connection it attaches again with its position.
#
# observer.rb SOCKET CHANNEL; `finish HEAD` on its input ends it when it has come to that id; it prints JSON.
require "io/wait"
require "json"
require "securerandom"
require "socket"

class Observer
  ATTACH, FETCH = 1, 5
  SUBSCRIBE, MESSAGE, GAP = 1, 4, 5
  CREDITS = 4
  SILENCE = 15
  ATTACH_LIMIT = 3
  RECORD = 40
  Lost = Class.new(StandardError)

  def initialize(path, channel)
    @path = path
    @channel = channel
    @session = SecureRandom.random_number(1 << 63) + 1
    @generation = @epoch = @last = @request = 0
    @counts = Hash.new(0)
    @wrong = []
  end

  def run
    until done?
      begin
        attach
        fetch until done?
      rescue Lost, SystemCallError, EOFError
        @counts[:connections] += 1
        sleep 0.05
      ensure
        @socket&.close
        @socket = nil
      end
    end
    puts JSON.generate(last: @last, wrong: @wrong.first(20), **@counts)
  end

  private

  def done?
    line = $stdin.wait_readable(0) && $stdin.gets
    @head = line[/\d+/].to_i if line
    @head && @last >= @head
  end

  def wrong(text)
    @wrong << text
  end

  def attach
    @socket = UNIXSocket.new(@path)
    @socket.write(["0053500000300000"].pack("H*"))
    raise Lost unless read(8, ATTACH_LIMIT) == ["0053500000310000"].pack("H*")

    @generation += 1
    block = [@generation, @epoch, 0, 0, Process.pid, 8, 0, 0].pack("Q<4L<S<S<Q<") + "observer"
    request(ATTACH, block + record(SUBSCRIBE, @channel), records: 1)
    reply = answer(ATTACH_LIMIT)
    raise Lost unless reply[:operation] == ATTACH && reply[:status].zero?

    wrong("another epoch behind id #{@last}") if @epoch != 0 && (reply[:epoch] != @epoch || reply[:flags] & 1 != 0)
    @last = reply[:head] if @epoch.zero?
    @epoch = reply[:epoch]
    CREDITS.times { request(FETCH) }
  end

  def fetch
    reply = answer(SILENCE)
    raise Lost unless reply[:operation] == FETCH && reply[:status].zero?

    at = 0
    reply[:records].times { at += take(reply[:body], at) }
    # No id of another channel exists: a position above the last id would be a loss that nobody told.
    wrong("position #{reply[:value]} behind id #{@last}") if reply[:value] != @last
    request(FETCH)
  end

  def take(body, at)
    size, type, _, _, id, _, sequence = body.unpack("L<CCS<Q<Q<Q<", offset: at)
    first = type == GAP ? sequence : id
    wrong("id #{first} behind #{@last}#{' in a GAP' if type == GAP}") if first != @last + 1 || id < first
    @counts[type == GAP ? :gaps : :messages] += 1
    @counts[:in_gaps] += id - first + 1 if type == GAP
    @last = id
    (size + 7) / 8 * 8
  end

  def record(type, channel)
    bytes = [RECORD + channel.size, type, 0, channel.size, 0, 0, 0, 0, 0].pack("L<CCS<Q<Q<Q<L<L<") + channel
    bytes + ("\0" * (-bytes.bytesize % 8))
  end

  def request(operation, body = "", records: 0)
    @request += 1
    message = [0x80000000 | @request].pack("N") + [1, operation, 0, records, @session, @last].pack("CCS<L<Q<Q<") + body
    @socket.write([1, message.bytesize].pack("CQ>") + message)
  end

  def answer(limit)
    kind, length = read(9, limit).unpack("CQ>")
    raise Lost unless kind == 1 && length.between?(36, 1 << 20)

    message = read(length, limit)
    _, operation, status, flags, records, epoch, head, value = message.unpack("CCCCL<Q<Q<Q<", offset: 4)
    { operation: operation, status: status, flags: flags, records: records, epoch: epoch, head: head, value: value,
      body: message.byteslice(36..) }
  end

  def read(size, limit)
    bytes = +"".b
    while bytes.bytesize < size
      raise Lost unless @socket.wait_readable(limit)

      bytes << @socket.readpartial(size - bytes.bytesize)
    end
    bytes
  end
end

Observer.new(*ARGV).run if $PROGRAM_NAME == __FILE__
