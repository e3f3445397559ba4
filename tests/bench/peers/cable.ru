# frozen_string_literal: true

# Action Cable without the rest of Rails: one channel, the in-process adapter. A client that subscribes to
# BenchChannel hears the stream; a client's `publish` action broadcasts to it.
require "logger"
require "action_cable"
require "active_support/all"

module BenchCable
  class Connection < ActionCable::Connection::Base; end

  class BenchChannel < ActionCable::Channel::Base
    def subscribed
      stream_from "bench" if params[:hear]
    end

    def publish(data)
      ActionCable.server.broadcast("bench", data["m"])
    end
  end
end

BenchChannel = BenchCable::BenchChannel

ActionCable.server.config.tap do |config|
  config.cable = { "adapter" => "async" }
  config.logger = Logger.new(File::NULL)
  config.connection_class = -> { BenchCable::Connection }
  config.disable_request_forgery_protection = true
  config.worker_pool_size = 4
end

run ActionCable.server
