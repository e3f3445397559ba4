# frozen_string_literal: true

require "digest"
require "open3"

module Support
  # An application without a configured broker: the socket that is its own by the rule, and who serves it.
  class Embedded
    # Ruby without Bundler, whose Gemfile would be the application's.
    PLAIN = { "BUNDLE_GEMFILE" => nil, "RUBYOPT" => nil, "RUBYLIB" => nil, "BROKERD_URL" => nil, "BROKERD_BIN" => nil }.freeze

    def self.socket(application, uid = Process.uid)
      "/tmp/brokerd-#{uid}/#{Digest::SHA256.hexdigest(application)[0, 16]}.sock"
    end

    attr_reader :application, :socket

    def initialize(application, uid = Process.uid)
      @application = application
      @socket = self.class.socket(application, uid)
    end

    def env
      { "BROKERD_URL" => nil, "BROKERD_APP" => @application, "BROKERD_BIN" => Broker.binary("brokerd") }
    end

    # The brokers of this application: session leaders, since the starter that waits for one has its arguments, too.
    def pids
      Dir["/proc/[0-9]*"].filter_map do |folder|
        next unless File.read("#{folder}/cmdline").split("\0").include?("ipc://#{@socket}")

        pid = File.basename(folder).to_i
        pid if File.read("#{folder}/stat").rpartition(")").last.split[3].to_i == pid
      rescue SystemCallError
        next
      end
    end

    # @return [Integer] the one that there must be
    def pid
      Deadline.wait_for("one broker at #{@socket}") { pids.size == 1 && pids.first }
    end

    def log
      File.exist?("#{@socket}.log") ? File.read("#{@socket}.log") : ""
    end

    def kill(signal = "KILL")
      pids.each { |pid| Process.kill(signal, pid) }
      Deadline.wait_for("the broker's end") { pids.empty? }
    end

    # Nothing is left of it.
    def stop
      kill
      files.each { |path| File.unlink(path) }
    end

    def files
      Dir["#{@socket}*"]
    end
  end
end
