# frozen_string_literal: true

module Brokerd
  # @api private
  # In Rails callbacks run inside the application's executor, as jobs do: code reloading, query caches and
  # connection pools behave.
  class Railtie < ::Rails::Railtie
    initializer "brokerd.executor" do |app|
      Callbacks.executor = app.executor
    end

    initializer "brokerd.logger", after: :initialize_logger do
      Brokerd.config.logger = ::Rails.logger if ::Rails.logger
    end
  end
end
