// What vdev.state/1 saves, as values that a test can read, change, print and compare.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "vdev/cpp/types.hpp"
#include "vdev/ext/state.h"

namespace vdev::testing {

struct SavedField {
  u32 tag, width;
  u64 maximum;
  std::string name;
  std::vector<u64> values;
  friend bool operator==(const SavedField&, const SavedField&) = default;
};

struct Snapshot {
  u32 version = 0;
  std::vector<SavedField> fields;

  const SavedField* find(std::string_view name) const;
  SavedField& at(std::string_view name); // throws std::out_of_range, with the names there are
  std::string to_text() const;           // "name = value …", a line a field
  std::string schema() const;            // "tag name width count maximum", a line a field: what a golden file holds
  friend bool operator==(const Snapshot&, const Snapshot&) = default;
};

// A line for every value that differs; empty: equal. Fields whose name starts with one of `except` are not compared.
std::string differences(const Snapshot& a, const Snapshot& b, const std::vector<std::string>& except = {});

// Sinks and sources for vdev.state/1.
struct SnapshotSink {
  explicit SnapshotSink(Snapshot& to);
  vdev_state_sink sink;
};
struct SnapshotSource {
  explicit SnapshotSource(const Snapshot& from);
  vdev_state_source source;
  const Snapshot& snapshot;
  bool check_maximum = true; // false: hands out values beyond `maximum`, for the device to refuse
};

} // namespace vdev::testing
