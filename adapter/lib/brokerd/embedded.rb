# frozen_string_literal: true

require "digest"
require "etc"

module Brokerd
  # @api private
  # The application's own broker, used when no URL is configured: where its socket is. The extension
  # starts a broker there when nobody serves it.
  module Embedded
    module_function

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

    def directory
      path = File.join(Etc.systmpdir, "brokerd-#{Process.uid}")
      begin
        Dir.mkdir(path, 0o700)
      rescue Errno::EEXIST
        nil # checked below, like one that we made
      end
      stat = File.lstat(path)
      return path if stat.directory? && stat.uid == Process.uid && (stat.mode & 0o077).zero?

      raise ConfigurationError, "#{path} must be a directory of this user alone (mode 0700); " \
                                "remove it, or set BROKERD_URL"
    end

    def folder_with_gemfile
      folder = Dir.pwd
      loop do
        return folder if File.file?(File.join(folder, "Gemfile"))

        parent = File.dirname(folder)
        return nil if parent == folder

        folder = parent
      end
    end

    private_class_method :directory, :folder_with_gemfile
  end
end
