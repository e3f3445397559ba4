# frozen_string_literal: true

require_relative "adapter/lib/brokerd/version"

Gem::Specification.new do |spec|
  spec.name = "brokerd"
  spec.version = Brokerd::VERSION
  spec.authors = ["the brokerd maintainers"]
  spec.summary = "WebSocket, Server-Sent Events and publish/subscribe for any Rack server"
  spec.description = "Rack middleware that upgrades WebSocket and EventSource requests on Puma and other servers, and a small " \
                     "message broker in C that carries what is published to every browser in every process. " \
                     "The broker is part of the gem and starts by itself."
  spec.license = "MIT"
  spec.required_ruby_version = ">= 3.1"
  spec.metadata["rubygems_mfa_required"] = "true"

  # The manifest: what an application needs, and the sources that are compiled when it is installed.
  spec.files = Dir.chdir(__dir__) do
    Dir["adapter/lib/**/*.rb", "adapter/sig/**/*.rbs", "adapter/ext/*.{c,h,rb}", "protocol/*.{c,h}",
        "brokerd/*.{c,h,rb}", "brokerd/ctl/*.{c,h}", "exe/*", "docs/*.md", "README.md", "SECURITY.md", "CHANGELOG.md", "LICENSE"].sort
  end
  spec.require_paths = ["adapter/lib"]
  spec.extensions = ["adapter/ext/extconf.rb", "brokerd/extconf.rb"]
  spec.bindir = "exe"
  spec.executables = %w[brokerctl brokerd]
  spec.extra_rdoc_files = ["README.md", "CHANGELOG.md"]
end
