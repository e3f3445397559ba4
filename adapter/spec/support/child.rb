# frozen_string_literal: true

module Support
  # A process that a spec started: it is ended by its id, and its output is in a file, or in two.
  class Child
    attr_reader :pid, :log, :status

    def initialize(env, command, log:, errors: nil, chdir: Dir.pwd, input: File::NULL, descriptors: {})
      @log = log
      @errors = errors
      @pid = Process.spawn(env, *command, out: [log, "a"], err: errors ? [errors, "a"] : %i[child out], in: input,
                                          chdir: chdir, pgroup: true, **descriptors)
    end

    def alive?
      return false if @status

      _, @status = Process.waitpid2(@pid, Process::WNOHANG)
      @status.nil?
    end

    def signal(name)
      Process.kill(name, @pid) if alive?
    end

    # @return [Process::Status, nil] nil when it had to be killed
    def stop(name = "TERM", limit: 15)
      signal(name)
      wait(limit)
    rescue RuntimeError
      Process.kill("KILL", -@pid)
      wait(limit)
      nil
    end

    def wait(limit = Deadline::LIMIT)
      Deadline.wait_for("the end of process #{@pid}", limit) { !alive? }
      @status
    end

    def errors
      @errors && File.exist?(@errors) ? File.read(@errors) : ""
    end

    def output
      File.exist?(@log) ? File.read(@log) : ""
    end
  end
end
