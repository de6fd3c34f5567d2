// The properties that every device has, whatever it models. Each is a function that answers "" (it holds), or what
// went wrong, with the trace that shows it; or NOT_APPLICABLE and why. They need no test framework: properties.hpp
// makes GoogleTests of them.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "vdev/testing/actions.hpp"

namespace vdev::testing {

struct RegisterAt {
  u32 region;
  u64 offset;
  u32 width = 1;
};

struct PropertyOptions {
  Options bench = {};                        // configuration, drives, RAM …
  std::function<void(Bench&)> prepare = {};  // brings the device to where random actions get deep
  std::vector<RegisterAt> read_only = {};    // registers to which a write changes nothing at all
  std::vector<std::string> reset_keeps = {}; // fields (or their first letters) that survive a reset
  std::string schema = {};                   // golden file beside the test; VDEV_UPDATE_SCHEMA=1 writes it
  u32 sequences = 24;                        // random sequences a property …
  u32 actions = 100;                         // … of so many actions
  u64 seed = 1;
};

struct Subject {
  std::shared_ptr<Library> library;
  std::string device; // id
  PropertyOptions options;
  std::string folder; // of the test's source

  // Opens the library. Throws LoadError.
  static Subject open(const std::string& path, const std::string& device, PropertyOptions options,
                      const std::string& source_file = "");
};

inline constexpr const char* NOT_APPLICABLE = "not applicable: ";

std::string the_manifest_tells_the_truth(const Subject& subject);        // about what the descriptor and the tables say
std::string steps_may_be_split(const Subject& subject);                  // n × step(1) == step(n)
std::string a_saved_device_goes_on_the_same(const Subject& subject);     // save/load anywhere == no save
std::string a_restarted_device_goes_on_the_same(const Subject& subject); // a new device over the same state memory
std::string reset_equals_fresh(const Subject& subject);
std::string peek_changes_nothing(const Subject& subject); // and answers what read would
std::string read_only_registers_keep(const Subject& subject);
std::string the_field_list_is_complete(const Subject& subject); // unique tags and names, every value comes back
std::string the_schema_is_as_recorded(const Subject& subject);
std::string load_refuses_bad_values(const Subject& subject); // and then leaves the state as it was
std::string any_accepted_state_runs(const Subject& subject); // whatever check() and load() let in is harmless
std::string random_actions_break_no_rule(const Subject& subject);

struct Property {
  const char* name;
  std::string (*holds)(const Subject&);
};
std::span<const Property> properties();

} // namespace vdev::testing
