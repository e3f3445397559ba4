# frozen_string_literal: true

require "digest/sha2" # not "digest": that loads it when it is first named, which two threads may do at once
require "etc"

module Brokerd
  # @api private
  # The application's own broker, used when no URL is configured: where its socket is, and which program
  # serves it. The extension starts that program when nobody serves the socket. brokerctl finds the socket
  # by the same rule (brokerd/ctl/embedded_path.c).
  module Embedded
    GEMFILES = %w[Gemfile gems.rb].freeze
    private_constant :GEMFILES

    module_function

    # What the extension needs to know.
    def settings
      url = "ipc://#{socket}"
      program = Programs.find("brokerd")
      Brokerd.logger.error("brokerd") { "no broker can be started: #{Programs.absent('brokerd')}" } unless program
      { url: url, embedded: true, program: program }
    end

    # The socket's path. The directory is this user's alone, made here when it is missing.
    # @raise [ConfigurationError] when the directory is somebody else's
    def socket
      File.join(directory, "#{Digest::SHA256.hexdigest(application)[0, 16]}.sock")
    end

    # What tells applications apart: the folder of the Gemfile, else the current one.
    def application
      given = ENV["BROKERD_APP"]
      return given if given && !given.empty?

      gemfile = ENV["BUNDLE_GEMFILE"]
      folder = File.dirname(gemfile) if gemfile && File.file?(gemfile)
      File.realpath(folder || folder_with_gemfile || Dir.pwd)
    end

    # Whoever else could write here could listen in the broker's place.
    def directory
      path = File.join(Etc.systmpdir, "brokerd-#{Process.uid}")
      make(path)
      stat = File.lstat(path)
      fault = fault_of(stat)
      return path unless fault

      raise ConfigurationError, "#{path} holds the sockets of your applications' brokers, but it #{fault}. " \
                                "Make it a directory of yours alone (mode 0700), or remove it and it is made anew, " \
                                "or let BROKERD_URL name a broker's socket elsewhere"
    end

    def make(path)
      Dir.mkdir(path, 0o700)
    rescue Errno::EEXIST
      nil # looked at like one that we made
    rescue SystemCallError => e
      raise ConfigurationError, "the folder for the broker's socket cannot be made: #{e.message}. " \
                                "Let BROKERD_URL name a broker's socket elsewhere"
    end

    def fault_of(stat)
      if stat.symlink? then "is a symbolic link"
      elsif !stat.directory? then "is not a directory"
      elsif stat.uid != Process.uid then "belongs to user #{stat.uid}, not to you (#{Process.uid})"
      elsif (stat.mode & 0o077).positive? then format("is open to other users (mode %04o)", stat.mode & 0o7777)
      end
    end

    def folder_with_gemfile
      folder = Dir.pwd
      loop do
        return folder if GEMFILES.any? { |name| File.file?(File.join(folder, name)) }

        parent = File.dirname(folder)
        return nil if parent == folder

        folder = parent
      end
    end

    private_class_method :directory, :make, :fault_of, :folder_with_gemfile
  end
end
