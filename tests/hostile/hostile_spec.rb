# frozen_string_literal: true

require_relative "../../adapter/spec/spec_helper"
require_relative "runs"

# The short form of scripts/hostile: the same runs and promises, but for those about time.
RSpec.describe "hostile clients" do
  it "clients that never read are evicted, cost bounded memory, and harm nobody" do
    figures = Hostile.never_read(clients: 40, seconds: 4, rate: 400, alone: false)
    expect(figures[:evicted]).to be >= 40
    expect(figures[:growth_mib]).to be < 100
  end

  it "connections that are dropped anywhere in the handshake or in a frame leave nothing behind" do
    figures = Hostile.drops(count: 1000, seed: 7)
    expect(figures[:upgraded]).to be > 300
  end

  it "floods of pings, tiny frames and fragments, slow handshakes and frames, and half-open peers cost bounded memory and harm nobody" do
    expect(Hostile.floods(seconds: 0.5, clients: 20, alone: false).keys).to eq(Hostile::FLOODS.keys)
  end
end
