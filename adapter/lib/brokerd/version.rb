# frozen_string_literal: true

module Brokerd
  # The gem's version; the daemon and the command line tool carry the same.
  VERSION = "0.1.0"
end
