# frozen_string_literal: true

# What every Gemfile here has besides Rack and Puma.
gem "rake"
gem "rake-compiler"
gem "rspec", "~> 3.12"

group :servers do
  gem "falcon"
  gem "pitchfork"
  gem "unicorn"
end

group :tools do
  gem "ferrum"
  gem "rbs"
  gem "redis" # for the spec of an engine on Redis
  gem "yard"
end
