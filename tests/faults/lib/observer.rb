# frozen_string_literal: true

module Faults
  # The process that reads ids (app/observer.rb), on a route of its own.
  class Observer
    PROGRAM = File.expand_path("../app/observer.rb", __dir__)

    def initialize(folder, url)
      @log = File.join(folder, "observer.log")
      input, @input = IO.pipe
      @child = Support::Child.new({}, [RbConfig.ruby, PROGRAM, url.delete_prefix("ipc://"), CHANNEL], log: @log, errors: "#{@log}.err",
                                                                                                     input: input)
      input.close
    end

    def pid
      @child.pid
    end

    # @param head [Integer] the last id
    # @return [Hash] what it found
    def finish(head)
      @input.puts("finish #{head}")
      @input.flush
      @child.wait(60)
      @child.status.success? ? JSON.parse(@child.output) : raise("the observer ended: #{@child.output}#{@child.errors}")
    end

    def stop
      @child.signal("CONT")
      @child.stop("KILL")
    end
  end
end
