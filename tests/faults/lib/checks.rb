# frozen_string_literal: true

module Faults
  # What several scripts demand of a run.
  module Checks
    module_function

    # Whatever is lost: nothing twice, each publisher's order, one order for all, everyone there till the end.
    def order(report, result)
      report.none("deliveries twice", result["twice"])
      report.none("out of their publisher's order", result["late"])
      result.values_at("first_late", "last_late").compact.each { |text| report.must("each publisher's order", false, text) }
      report.none("clients with another order than their process", result["diverged"])
      report.must("one total order", result["total_order"])
      report.must("all clients complete", result["complete"])
      report.none("clients closed", result["closed"])
      report.none("foreign messages", result["foreign"])
    end

    def nothing_lost(report, plant, result)
      report.none("deliveries lost", result["lost"])
      report.none("gaps", plant.reports.sum { |one| one["stats"]["gaps"] })
      report.none("publishes unsure", plant.unsure)
    end

    # Every loss was told by a gap before the next message, and the gaps' ranges are right. A gap says how many: for
    # each process what blocks were told, and what is missing, must come to the same, but for publishes that no one
    # knows the fate of (unsure). Those that were not taken are missing everywhere, in the same number.
    def losses_told(report, plant, result)
      unsure = plant.unsure
      watches = plant.reports.map { |one| one["watch"] }
      report.figure("publishes unsure", unsure)
      report.figure("gaps told to blocks, by process", watches.map { |w| w["gaps"] }.join(", "))
      report.figure("messages in them", watches.map { |w| w["told"] }.join(", "))
      report.figure("messages missing", watches.map { |w| w["missing"] }.join(", "))
      untold = watches.map { |w| w["missing"] - w["told"] }
      report.must("the gaps' ranges are right", untold.uniq.size == 1 && untold.first.between?(0, unsure), untold.inspect)
      ahead = watches.map { |w| w["untold"] }
      report.must("each loss is told before the next message", ahead.max <= unsure, ahead.inspect)
      report.none("messages twice to a block", watches.sum { |w| w["twice"] })
      missed = watches.zip(plant.reports).map { |w, one| w["missing"] - one["stats"]["blocks_dropped"] }
      report.must("browsers miss what blocks miss", missed == result["lost_by_process"], [missed, result["lost_by_process"]].inspect)
    end

    # What a peer saw that knows the ids: none is passed over without a GAP, each GAP begins right behind the last id.
    def ids(report, plant)
      found = plant.observed or return
      report.figure("ids seen one by one, and in GAP records", "#{found['messages'].to_i}, #{found['in_gaps'].to_i} in #{found['gaps'].to_i}")
      report.must("every id comes or is in a GAP of the right range", found["wrong"].empty?, found["wrong"].inspect)
      found
    end

    def no_complaints(report, plant)
      plant.complaints.first(10).each { |line| report.must("no complaint", false, line) }
    end
  end
end
