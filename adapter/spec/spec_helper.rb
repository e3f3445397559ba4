# frozen_string_literal: true

$LOAD_PATH.unshift(File.expand_path("../lib", __dir__), __dir__)

require "fileutils"
require "openssl"
require "securerandom"
require "stringio"
require "tmpdir"
require "brokerd"
require "support/deadline"
require "support/ports"
require "support/child"
require "support/broker"
require "support/web_socket"
require "support/event_stream"
require "support/http"
require "support/server"
require "support/lab"
require "support/crowd"
require "support/helpers"

RSpec.configure do |config|
  config.include Support::Helpers
  config.extend Support::Lab::Macros
  config.disable_monkey_patching!
  config.order = :defined
  config.expect_with(:rspec) { |expectations| expectations.syntax = :expect }

  config.around do |example|
    Dir.mktmpdir("brokerd-spec") do |folder|
      @folder = folder
      example.run
    ensure
      release
    end
  end
end
