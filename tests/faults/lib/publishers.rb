# frozen_string_literal: true

module Faults
  CHANNEL = "chaos"
  PUBLISHER = File.expand_path("../app/publisher.rb", __dir__)

  # A Ruby process that publishes until it is told to finish.
  class LongPublisher
    attr_reader :last, :refused, :unsure

    def initialize(folder, number, rate, env)
      @log = File.join(folder, "publisher-#{number}.log")
      @input, output = IO.pipe.reverse
      @child = Support::Child.new(env, Faults.ruby(PUBLISHER, number, rate), log: @log, errors: "#{@log}.err", input: output)
      output.close
    end

    def pids
      [@child.pid]
    end

    def finish(limit)
      @input.close
      Faults.published(@child, limit) { |last, refused, unsure| @last, @refused, @unsure = last, refused, unsure }
    end

    def stop
      @child.signal("CONT")
      @child.stop("KILL")
    end
  end

  # One after another, Ruby processes that publish a few messages and end; each goes on where the last one was.
  class ShortPublishers
    attr_reader :last, :processes, :refused, :unsure

    LIFE = 2 # seconds

    def initialize(folder, number, rate, env)
      @folder = folder
      @number = number
      @rate = rate
      @env = env
      @started = Support::Deadline.now
      @last = @processes = @refused = @unsure = 0
      @thread = Thread.new { one until @finished_at && @last >= due(@finished_at) }
      @thread.report_on_exception = false
    end

    def pids
      [@child&.pid].compact
    end

    def finish(limit)
      @finished_at = Support::Deadline.now
      raise "short-lived publisher #{@processes} did not end within #{limit} s" unless @thread.join(limit)
    end

    def stop
      @thread.kill
      @child&.signal("CONT")
      @child&.stop("KILL")
    end

    private

    def one
      @processes += 1
      log = File.join(@folder, "publisher-#{@number}-#{@processes}.log")
      # What is due by the end of its life, so that the series keeps its rate.
      count = due(@finished_at || (Support::Deadline.now + LIFE)) - @last
      rate = [@rate, count / LIFE].max
      @child = Support::Child.new(@env, Faults.ruby(PUBLISHER, @number, rate, @last + 1, count), log: log, errors: "#{log}.err")
      Faults.published(@child, 150) do |last, refused, unsure|
        @last = last
        @refused += refused
        @unsure += unsure
      end
    end

    def due(time)
      ((time - @started) * @rate).to_i
    end
  end

  module_function

  def ruby(program, *arguments)
    [RbConfig.ruby, "-I", Support::Server::LIB, program, *arguments.map(&:to_s)]
  end

  # Waits for a publisher's end and gives what it said; the words on its standard error are an error.
  def published(child, limit)
    child.wait(limit)
    said = child.output[/published \d+ refused \d+ unsure \d+/] or raise "a publisher said only: #{child.output}#{child.errors}"
    raise "a publisher ended with #{child.status}: #{child.errors}" unless child.status.success?

    yield(*said.scan(/\d+/).map(&:to_i))
  end
end
