# frozen_string_literal: true

require_relative "../../adapter/spec/spec_helper"
require "ferrum"
require "net/http"

# A real Chromium on the chat of examples/chat, two Puma workers, a real broker.
RSpec.describe "the chat in Chromium" do
  flags = { "no-sandbox" => nil, "disable-gpu" => nil, "disable-quic" => nil, "no-first-run" => nil,
            "disable-background-networking" => nil, "disable-component-update" => nil, "disable-sync" => nil }

  before(:context) do
    @chat_folder = Dir.mktmpdir("brokerd-browser")
    @chat_broker = Support::Broker.new(@chat_folder)
    rackup = File.expand_path("../../examples/chat/config.ru", __dir__)
    @chat = Support::Server.new(@chat_folder, "eval(File.read(#{rackup.dump}), binding, #{rackup.dump})",
                                url: @chat_broker.url, workers: 2)
    @browser = Ferrum::Browser.new(browser_path: "/usr/bin/chromium", browser_options: flags, timeout: 20, process_timeout: 30)
  end

  after(:context) do
    @browser&.quit
    @chat&.stop
    @chat_broker&.stop
    FileUtils.rm_rf(@chat_folder)
  end

  def page(context = @browser.contexts.create)
    context.create_page.tap do |page|
      page.go_to("http://127.0.0.1:#{@chat.port}/")
      wait_for("both connections of the page") { page.css(".state[data-open]").size == 2 }
    end
  end

  def lines(page, list)
    page.css("##{list} li").map(&:text)
  end

  def wait_for_line(page, list, text)
    wait_for("#{text.inspect} in #{list}") { lines(page, list).any? { |line| line.include?(text) } }
  end

  it "shows over WebSocket and EventSource what brokerctl publish sends (S-1, S-2, P-7, P-21)" do
    page = self.page
    @chat_broker.publish("chat", "hello from a shell")
    wait_for_line(page, "ws-log", "hello from a shell")
    wait_for_line(page, "sse-log", "hello from a shell")
  end

  it "lets two windows talk, each message once (P-21)" do
    first, second = page, page
    first.at_css("#text").focus.type("good morning", :Enter)
    [first, second].each do |window|
      %w[ws-log sse-log].each do |list|
        wait_for_line(window, list, "good morning")
        expect(lines(window, list).count { |line| line.include?("good morning") }).to eq(1)
      end
    end
  end

  it "shows markup as text" do
    page = self.page
    @chat_broker.publish("chat", "<img src=x onerror=document.title='owned'>")
    wait_for_line(page, "ws-log", "<img src=x")
    expect(page.title).to eq("brokerd chat")
  end

  it "keeps both connections open while the broker is ended and started again" do
    page = self.page
    @chat_broker.stop
    @chat_broker.start
    wait_for("a message after the restart") do
      @chat_broker.publish("chat", "back again")
      lines(page, "ws-log").any? { |line| line.include?("back again") }
    end
    wait_for_line(page, "sse-log", "back again")
    expect(page.css(".state[data-open]").size).to eq(2)
  end
end
