# frozen_string_literal: true

module Faults
  # A process's memory in KiB, from the kernel's account.
  module Memory
    module_function

    # @return [Hash{Symbol => Integer}] rss and pss of all, and rss of all but the mappings of that file
    def of(pid, but:)
      sums = { rss: 0, pss: 0, rest: 0 }
      file = nil
      File.foreach("/proc/#{pid}/smaps") do |line|
        case line
        when /\A\h+-\h+ / then file = line.split(" ", 6)[5]&.chomp
        when /\ARss: +(\d+)/
          sums[:rss] += $1.to_i
          sums[:rest] += $1.to_i unless file&.start_with?(but)
        when /\APss: +(\d+)/ then sums[:pss] += $1.to_i
        end
      end
      sums
    end
  end
end
