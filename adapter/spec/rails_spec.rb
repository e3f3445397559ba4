# frozen_string_literal: true

require "spec_helper"

# A whole, if small, Rails application on Puma: BUNDLE_GEMFILE=gemfiles/rails.gemfile bundle exec rspec adapter/spec/rails_spec.rb
RSpec.describe "Rails", skip: Gem.loaded_specs.key?("railties") ? false : "railties is not in this bundle" do
  app = <<~'RUBY'
    require "rails"
    require "action_controller/railtie"
    require "brokerd"

    class Live
      def on_open(client) = client.subscribe("chat")

      def on_message(client, data)
        case data
        when "executor" then client.write(Thread.current[:in_executor].inspect)
        when "raise" then raise "on purpose"
        else client.publish("chat", data)
        end
      end
    end

    class LiveController < ActionController::Base
      def show
        cookies[:seen] = "yes"
        request.env["rack.upgrade"] = Live.new if request.env["rack.upgrade?"]
        render plain: "a page"
      end

      def refused
        request.env["rack.upgrade"] = Live.new
        head :forbidden
      end
    end

    class Application < Rails::Application
      config.load_defaults 7.2
      config.eager_load = true
      config.secret_key_base = "x" * 64
      config.hosts.clear
      config.logger = Logger.new($stdout, formatter: ->(level, _, name, line) { "rails #{level} #{name} #{line}\n" })
      config.middleware.insert_before 0, Brokerd::Middleware
      routes.append do
        get "/live", to: "live#show"
        get "/refused", to: "live#refused"
      end
    end
    Application.initialize!
    Application.executor.to_run { Thread.current[:in_executor] = true }
    Application.executor.to_complete { Thread.current[:in_executor] = nil }
    run Application
  RUBY

  { "Puma" => {}, "Puma with two workers and preload_app!" => { workers: 2, preload: true } }.each do |name, options|
    it "upgrades, sends what the controller set, and runs callbacks in the executor with Rails' logger: #{name}" do
      server = start_server(app, prelude: "", **options)
      client = websocket(server: server, path: "/live")
      expect(client).to be_upgraded
      expect(client.headers["set-cookie"].join).to include("seen=yes")
      stream = event_stream(server: server, path: "/live")
      expect(stream.status).to eq(200)
      %w[executor raise executor].each { |text| client.text(text) }
      expect([client.receive, client.receive]).to eq(%w[true true])
      client.text("to all")
      expect(client.receive).to eq("to all")
      wait_for("the stream's event") do # its subscription may be later than the first
        client.text("again")
        stream.receive(1) == "again"
      rescue RuntimeError
        nil
      end
      expect(get(server: server, path: "/live").body).to eq("a page")
      expect(get(server: server, path: "/refused", headers: { "Accept" => "text/event-stream" }).status).to eq(403)
      wait_for("Rails' log") { server.log.match?(/^rails ERROR brokerd on_message raised RuntimeError: on purpose/) }
    end
  end
end
