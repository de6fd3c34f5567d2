#include "vdev/testing/check.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>

#include "vdev/ext/draft/state_cover.h"

namespace vdev::testing {

Subject Subject::open(const std::string& path, const std::string& device, PropertyOptions options,
                      const std::string& source_file) {
  Subject subject{Library::open(path), device, std::move(options), source_file.substr(0, source_file.rfind('/') + 1)};
  subject.options.bench.device = device;
  return subject;
}

namespace {

// One bench of the subject, ready for random actions.
struct Run {
  explicit Run(const Subject& subject) : bench(subject.library, subject.options.bench) {
    if (subject.options.prepare) subject.options.prepare(bench);
  }
  Bench bench;
  Trace trace;

  std::optional<u64> act(const Action& action) {
    const std::optional<u64> result = run(bench, action);
    trace.push_back({action, result});
    return result;
  }
  // Empty, or the rules that were broken on the way.
  std::string broken() {
    std::string text;
    for (const std::string& violation : bench.host.take_violations()) text += violation + "\n";
    return text;
  }
};

std::string story(const char* what, const std::string& detail, const Trace& trace) {
  return std::string(what) + "\n" + detail + "after this trace:\n" + to_text(trace);
}

std::string event_differences(const Bench& a, const Bench& b) {
  const std::vector<Event>&x = a.events(), &y = b.events();
  for (std::size_t i = 0; i < std::max(x.size(), y.size()); ++i) {
    if (i < x.size() && i < y.size() && x[i] == y[i]) continue;
    const auto text = [i](const std::vector<Event>& e) {
      return i < e.size() ? to_string(e[i]) : std::string("nothing");
    };
    return "output " + std::to_string(i + 1) + ": " + text(x) + ", and " + text(y) + "\n";
  }
  return "";
}

std::string all_differences(Bench& a, Bench& b) { return differences(a.save(), b.save()) + event_differences(a, b); }

// Runs `property` for every seed, until one fails. What a device breaks on the way fails every property.
template <class OneSequence>
std::string for_each_sequence(const Subject& subject, OneSequence&& one) {
  for (u32 i = 0; i < subject.options.sequences; ++i) {
    Random random(subject.options.seed * 1'000'003 + i);
    const std::string failure = one(random);
    if (!failure.empty()) return "sequence " + std::to_string(i) + ": " + failure;
  }
  return "";
}

// Spans of time around the next deadlines, in total `total`, to a good part single nanoseconds.
std::vector<u64> pieces_of(u64 total, u64 to_deadline, Random& random) {
  std::vector<u64> pieces;
  const auto take = [&](u64 ns) {
    ns = std::min(ns, total);
    if (ns) pieces.push_back(ns);
    total -= ns;
  };
  for (int i = 0; i < 100; ++i) take(1);
  if (to_deadline > 110) take(to_deadline - 105);
  for (int i = 0; i < 20; ++i) take(1);
  while (total > 0) take(1 + random() % (total > 1000 ? total / 3 : total));
  return pieces;
}

} // namespace

std::string the_manifest_tells_the_truth(const Subject& subject) {
  Run run(subject);
  const vdev_descriptor& descriptor = run.bench.descriptor();
  const ManifestDevice& promised = *subject.library->manifest().find(descriptor.id);
  if (promised.state_version != descriptor.state_version) return "the state versions differ";
  if (promised.irq_count != descriptor.irq_count) return "the numbers of interrupt outputs differ";
  if (promised.regions.size() != descriptor.region_count) return "the numbers of regions differ";
  if (promised.pci_functions != run.bench.function_count()) return "the numbers of PCI functions differ";
  for (u32 i = 0; i < descriptor.region_count; ++i) {
    const vdev_region actual = region_of(descriptor, i);
    const ManifestRegion& r = promised.regions[i];
    const bool same = r.name == actual.name && r.space == actual.space && r.flags == actual.flags &&
                      r.length == actual.length && r.widths == actual.widths && r.default_base == actual.default_base;
    if (!same) return "region " + r.name + " differs";
  }
  return run.broken();
}

std::string steps_may_be_split(const Subject& subject) {
  if (!Run(subject).bench.extension(VDEV_TIMER)) return std::string(NOT_APPLICABLE) + "no vdev.timer/1";
  return for_each_sequence(subject, [&](Random& random) -> std::string {
    Run whole(subject), split(subject);
    for (u32 i = 0; i < subject.options.actions; ++i) {
      const Action action = random_action(whole.bench, random);
      whole.act(action);
      split.act(action);
      const u64 deadline = whole.bench.next_event();
      if (i % 8 != 0 || deadline == VDEV_NEVER) continue;
      const u64 to_deadline = deadline > whole.bench.now() ? deadline - whole.bench.now() : 0;
      const u64 total = std::min<u64>(3 * to_deadline + random() % 1000, 50'000'000'000);
      whole.bench.step(total);
      for (const u64 piece : pieces_of(total, to_deadline, random)) split.bench.step(piece);
      whole.trace.push_back({{Op::Step, 0, 1, 0, total}, {}});
      const std::string different = all_differences(whole.bench, split.bench);
      if (!different.empty()) return story("step(n) and the same time in pieces differ:", different, whole.trace);
    }
    const std::string broken = whole.broken() + split.broken();
    return broken.empty() ? "" : story("rules were broken:", broken, whole.trace);
  });
}

namespace {

// The same actions twice; the second time with `disturb` now and then, which must make no difference.
std::string undisturbed_by(const Subject& subject, Op disturb, const char* what) {
  return for_each_sequence(subject, [&](Random& random) -> std::string {
    Run plain(subject), disturbed(subject);
    for (u32 i = 0; i < subject.options.actions; ++i) {
      if (random() % 8 == 0) disturbed.act({disturb});
      const Action action = random_action(plain.bench, random);
      const std::optional<u64> a = plain.act(action), b = disturbed.act(action);
      std::string different = all_differences(plain.bench, disturbed.bench);
      if (a != b) different += "the last action answered " + to_text(Trace{plain.trace.back()}) + "instead\n";
      if (!different.empty()) return story(what, different, disturbed.trace);
    }
    const std::string broken = plain.broken() + disturbed.broken();
    return broken.empty() ? "" : story("rules were broken:", broken, disturbed.trace);
  });
}

} // namespace

std::string a_saved_device_goes_on_the_same(const Subject& subject) {
  return undisturbed_by(subject, Op::Migrate, "a device that was saved and loaded elsewhere behaves differently:");
}

std::string a_restarted_device_goes_on_the_same(const Subject& subject) {
  return undisturbed_by(subject, Op::Restart, "a new device over the same state memory behaves differently:");
}

std::string reset_equals_fresh(const Subject& subject) {
  return for_each_sequence(subject, [&](Random& random) -> std::string {
    Run used(subject);
    for (u32 i = 0; i < subject.options.actions; ++i) used.act(random_action(used.bench, random));
    used.act({Op::Reset});
    Options same_time = subject.options.bench;
    same_time.start_ns = used.bench.now();
    Bench fresh(subject.library, same_time);
    std::string different = differences(used.bench.save(), fresh.save(), subject.options.reset_keeps);
    for (u32 i = 0; i < used.bench.descriptor().irq_count && subject.options.reset_keeps.empty(); ++i) {
      if (used.bench.irq(i) != fresh.irq(i)) different += "interrupt output " + std::to_string(i) + "\n";
    }
    if (!different.empty()) return story("after reset, and fresh:", different, used.trace);
    const std::string broken = used.broken();
    return broken.empty() ? "" : story("rules were broken:", broken, used.trace);
  });
}

namespace {

// Every legal access to every register; at most 1024 a region.
template <class Visit>
std::string for_each_register(Bench& bench, Visit&& visit) {
  for (u32 r = 0; r < bench.region_count(); ++r) {
    const vdev_region region = bench.region_at(r);
    for (u32 width = 1; width <= 8; width *= 2) {
      if (!(region.widths & width)) continue;
      for (u64 offset = 0; offset + width <= region.length && offset < 1024 * width; offset += width) {
        const std::string failure = visit(RegisterAt{r, offset, width});
        if (!failure.empty()) {
          return "region " + std::string(region.name) + ", offset " + std::to_string(offset) + ", width " +
                 std::to_string(width) + ": " + failure;
        }
      }
    }
  }
  return "";
}

} // namespace

std::string peek_changes_nothing(const Subject& subject) {
  if (!Run(subject).bench.extension(VDEV_INSPECT)) return std::string(NOT_APPLICABLE) + "no vdev.inspect/1";
  return for_each_sequence(subject, [&](Random& random) -> std::string {
    Run used(subject);
    for (u32 i = 0; i < subject.options.actions; ++i) used.act(random_action(used.bench, random));
    const std::string failure = for_each_register(used.bench, [&](RegisterAt at) -> std::string {
      const Snapshot before = used.bench.save();
      const std::size_t events = used.bench.events().size();
      const std::optional<u64> peeked = used.bench.peek(at.region, at.offset, at.width);
      std::string different = differences(before, used.bench.save());
      if (used.bench.events().size() != events) different += "an output changed\n";
      if (!different.empty()) return "peek changed\n" + different;
      const u64 value = used.bench.in(at.region, at.offset, at.width);
      if (peeked && *peeked != value)
        return "peek answers " + std::to_string(*peeked) + ", read " + std::to_string(value) + "\n";
      return "";
    });
    if (!failure.empty()) return story("peek:", failure, used.trace);
    const std::string broken = used.broken();
    return broken.empty() ? "" : story("rules were broken:", broken, used.trace);
  });
}

std::string read_only_registers_keep(const Subject& subject) {
  if (subject.options.read_only.empty()) return std::string(NOT_APPLICABLE) + "no read_only registers are given";
  return for_each_sequence(subject, [&](Random& random) -> std::string {
    Run used(subject);
    for (u32 i = 0; i < subject.options.actions; ++i) used.act(random_action(used.bench, random));
    for (const RegisterAt& at : subject.options.read_only) {
      const Snapshot before = used.bench.save();
      const std::size_t events = used.bench.events().size();
      used.act({Op::Write, u8(at.region), u8(at.width), u32(at.offset), random()});
      std::string different = differences(before, used.bench.save());
      if (used.bench.events().size() != events) different += to_string(used.bench.events().back()) + "\n";
      if (!different.empty()) return story("a write to a read-only register changed", different, used.trace);
    }
    return "";
  });
}

std::string the_field_list_is_complete(const Subject& subject) {
  Run run(subject);
  const Snapshot start = run.bench.save();
  std::set<u32> tags;
  std::set<std::string> names;
  for (const SavedField& field : start.fields) {
    if (!tags.insert(field.tag).second) return "tag " + std::to_string(field.tag) + " is there twice, at " + field.name;
    if (!names.insert(field.name).second) return "two fields are called " + field.name;
    const bool width_is_good = field.width == 1 || field.width == 2 || field.width == 4 || field.width == 8;
    if (!width_is_good) return field.name + " has a width of " + std::to_string(field.width);
    if (field.width < 8 && field.maximum >> (8 * field.width)) return field.name + " has a maximum beyond its width";
  }
  if (const auto* cover = static_cast<const vdev_state_cover*>(run.bench.extension(VDEV_STATE_COVER))) {
    const i64 at = cover->first_unlisted();
    if (at >= 0) return "byte " + std::to_string(at) + " of State counts in operator==, and is in no field of the list";
  }
  for (std::size_t f = 0; f < start.fields.size(); ++f) {
    const u64 maximum = start.fields[f].maximum;
    for (const u64 pattern : {maximum, maximum / 3, u64{0xa5a5a5a5a5a5a5a5} & maximum, u64{1} & maximum, u64{0}}) {
      Snapshot changed = start;
      for (u64& value : changed.fields[f].values) value = std::min(pattern, maximum);
      if (run.bench.restore(changed) < 0) continue; // not a valid state: that is the device's to say
      const std::string different = differences(changed, run.bench.save());
      if (!different.empty()) return "loaded, and saved again:\n" + different;
    }
  }
  return run.broken();
}

std::string the_schema_is_as_recorded(const Subject& subject) {
  if (subject.options.schema.empty()) return std::string(NOT_APPLICABLE) + "no golden schema file is named";
  const std::string path = subject.folder + subject.options.schema;
  const std::string schema = Run(subject).bench.save().schema();
  const char* update = std::getenv("VDEV_UPDATE_SCHEMA");
  if (update && *update == '1') std::ofstream(path) << schema;
  std::ifstream file(path);
  if (!file) return path + " is not there; VDEV_UPDATE_SCHEMA=1 writes it";
  std::stringstream recorded;
  recorded << file.rdbuf();
  if (recorded.str() == schema) return "";
  return path + " says\n" + recorded.str() + "and the device\n" + schema +
         "A snapshot of the last release must still load: new fields take new tags, and a changed meaning raises "
         "state_version. Then run with VDEV_UPDATE_SCHEMA=1.\n";
}

std::string load_refuses_bad_values(const Subject& subject) {
  return for_each_sequence(subject, [&](Random& random) -> std::string {
    Run run(subject);
    for (u32 i = 0; i < subject.options.actions / 4; ++i) run.act(random_action(run.bench, random));
    const Snapshot good = run.bench.save();
    const std::size_t events = run.bench.events().size();
    for (std::size_t f = 0; f < good.fields.size(); ++f) {
      const u64 maximum = good.fields[f].maximum;
      if (maximum == ~u64{0}) continue;
      for (const u64 value : {maximum + 1, ~u64{0}, maximum + 1 + random() % (~u64{0} - maximum)}) {
        Snapshot bad = good;
        std::vector<u64>& values = bad.fields[f].values;
        values[random() % values.size()] = value;
        if (run.bench.restore(bad, false) >= 0) {
          return good.fields[f].name + " = " + std::to_string(value) + " was loaded; its maximum is " +
                 std::to_string(maximum);
        }
        const std::string changed = differences(good, run.bench.save());
        if (!changed.empty() || run.bench.events().size() != events)
          return "a refused load changed the device:\n" + changed;
      }
    }
    Snapshot newer = good;
    newer.version = good.version + 1;
    if (run.bench.restore(newer) >= 0) return "a state of a newer version was loaded";
    return run.broken();
  });
}

std::string any_accepted_state_runs(const Subject& subject) {
  return for_each_sequence(subject, [&](Random& random) -> std::string {
    Run run(subject);
    // By tags: random values within each field's maximum.
    Snapshot snapshot = run.bench.save();
    for (SavedField& field : snapshot.fields) {
      if (random() % 2) continue;
      for (u64& value : field.values) value = field.maximum == ~u64{0} ? random() : random() % (field.maximum + 1);
    }
    run.bench.restore(snapshot);
    for (u32 i = 0; i < subject.options.actions; ++i) run.act(random_action(run.bench, random));
    // In place: a state memory with flipped bytes, which a new device finds if check() lets it.
    std::vector<u8> bytes(run.bench.host.state_memory().begin(), run.bench.host.state_memory().end());
    for (u64 flips = 1 + random() % 8; flips > 0; --flips) bytes[random() % bytes.size()] = u8(random());
    if (run.bench.check({bytes.data(), bytes.size() - 1}) >= 0) return "check() accepts a state that is too short";
    if (run.bench.check(bytes) >= 0) {
      std::copy(bytes.begin(), bytes.end(), run.bench.host.state_memory().begin());
      run.act({Op::Restart});
      for (u32 i = 0; i < subject.options.actions; ++i) run.act(random_action(run.bench, random));
    }
    const std::string broken = run.broken();
    return broken.empty() ? "" : story("rules were broken:", broken, run.trace);
  });
}

std::string random_actions_break_no_rule(const Subject& subject) {
  return for_each_sequence(subject, [&](Random& random) -> std::string {
    Run run(subject);
    for (u32 i = 0; i < 4 * subject.options.actions; ++i) {
      run.act(random_action(run.bench, random));
      if (random() % 32 == 0) run.act({random() % 2 ? Op::Migrate : Op::Restart});
    }
    const std::span<const u8> state = run.bench.host.state_memory();
    if (run.bench.check(state) < 0) return story("check() refuses a state that the device reached:", "", run.trace);
    const std::string broken = run.broken();
    return broken.empty() ? "" : story("rules were broken:", broken, run.trace);
  });
}

std::span<const Property> properties() {
  static constexpr Property ALL[] = {
      {"TheManifestTellsTheTruth", &the_manifest_tells_the_truth},
      {"StepsMayBeSplit", &steps_may_be_split},
      {"ASavedDeviceGoesOnTheSame", &a_saved_device_goes_on_the_same},
      {"ARestartedDeviceGoesOnTheSame", &a_restarted_device_goes_on_the_same},
      {"ResetEqualsFresh", &reset_equals_fresh},
      {"PeekChangesNothing", &peek_changes_nothing},
      {"ReadOnlyRegistersKeep", &read_only_registers_keep},
      {"TheFieldListIsComplete", &the_field_list_is_complete},
      {"TheSchemaIsAsRecorded", &the_schema_is_as_recorded},
      {"LoadRefusesBadValues", &load_refuses_bad_values},
      {"AnyAcceptedStateRuns", &any_accepted_state_runs},
      {"RandomActionsBreakNoRule", &random_actions_break_no_rule},
  };
  return ALL;
}

} // namespace vdev::testing
