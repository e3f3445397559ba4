# frozen_string_literal: true

require "rbconfig"

module Brokerd
  # @api private
  # Where the compiled programs `brokerd` and `brokerctl` are: named by an environment variable, installed
  # with the gem, built in the checkout, or somewhere on PATH.
  module Programs
    VARIABLES = { "brokerd" => "BROKERD_BIN", "brokerctl" => "BROKERCTL_BIN" }.freeze
    private_constant :VARIABLES

    module_function

    # @param name [String] "brokerd" or "brokerctl"
    # @return [String, nil] its path
    def find(name)
      given = ENV.fetch(VARIABLES.fetch(name), nil)
      return given if given && !given.empty?

      folders = [*installed, File.expand_path("../../../build/bin", __dir__),
                 *ENV.fetch("PATH", "").split(File::PATH_SEPARATOR)]
      folders.map { |folder| File.join(folder, name) }.find { |path| program?(path) }
    end

    # Replaces this process by the program.
    def run(name, arguments)
      path = find(name)
      exec(path, *arguments) if path
      warn "#{name}: #{absent(name)}"
      exit 1
    rescue SystemCallError => e
      warn "#{name}: #{path}: #{e.message}"
      exit 1
    end

    # Why it is not there and what to do.
    def absent(name)
      if name == "brokerctl"
        "it was not built when the gem was installed, since libnng was missing. Install it " \
          "(Debian/Ubuntu: apt install libnng-dev; Fedora: dnf install nng-devel; macOS: brew install nng), " \
          "then run: gem pristine brokerd"
      else
        "it was not built when the gem was installed (BROKERD_SKIP_DAEMON?). Run: gem pristine brokerd, " \
          "or let BROKERD_BIN name one"
      end
    end

    # RubyGems keeps what an extension installs below the gem's extension folder.
    def installed
      spec = Gem.loaded_specs["brokerd"]
      folders = [RbConfig::CONFIG["sitearchdir"]]
      folders.unshift(spec.extension_dir) if spec
      folders.map { |folder| File.join(folder, "brokerd", "bin") }
    end

    # A RubyGems launcher on PATH is a script, which would only lead back here.
    def program?(path)
      File.file?(path) && File.executable?(path) && File.binread(path, 2) != "#!"
    end

    private_class_method :installed, :program?
  end
end
