# frozen_string_literal: true

module Faults
  # One of the programs in C, told what to do by lines.
  class PipeProgram
    def initialize(name, *arguments)
      @name = name
      @lines = []
      @mutex = Mutex.new
      @input, output, @thread = Open3.popen2(Support::Broker.binary(name), *arguments.map(&:to_s))
      @reader = Thread.new { output.each_line { |line| @mutex.synchronize { @lines << line.chomp } } }
    end

    def pid
      @thread.pid
    end

    def tell(line)
      @input.puts(line)
      @input.flush
    rescue Errno::EPIPE
      raise "#{@name} ended: #{@thread.value}"
    end

    def find(pattern)
      @mutex.synchronize { @lines.reverse_each.find { |line| pattern === line } }
    end

    def wait_for(pattern, limit)
      Support::Deadline.wait_for("#{pattern.inspect} of #{@name}", limit) do
        find(pattern) || (@thread.alive? || @reader.alive? ? nil : find(pattern) || raise("#{@name} ended: #{@thread.value}"))
      end
    end

    # Ends its input, and waits for its end.
    def stop
      @input.close unless @input.closed?
      Process.kill("KILL", pid) unless @thread.join(5)
      @reader.join(5)
    end
  end
end
