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
  gem "yard"
end
