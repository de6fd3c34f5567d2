#include "vdev/testing/snapshot.hpp"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <stdexcept>

namespace vdev::testing {

const SavedField* Snapshot::find(std::string_view name) const {
  const auto found = std::find_if(fields.begin(), fields.end(), [&](const SavedField& f) { return f.name == name; });
  return found == fields.end() ? nullptr : &*found;
}

SavedField& Snapshot::at(std::string_view name) {
  for (SavedField& field : fields) {
    if (field.name == name) return field;
  }
  std::string known;
  for (const SavedField& field : fields) known += " " + field.name;
  throw std::out_of_range("no saved field '" + std::string(name) + "'; there are:" + known);
}

std::string Snapshot::to_text() const {
  std::string text;
  char number[24];
  for (const SavedField& field : fields) {
    text += field.name + " =";
    for (const u64 value : field.values) {
      std::snprintf(number, sizeof number, " %#" PRIx64, value);
      text += number;
    }
    text += "\n";
  }
  return text;
}

std::string Snapshot::schema() const {
  std::string text = "version " + std::to_string(version) + "\n";
  char line[128];
  for (const SavedField& field : fields) {
    std::snprintf(line, sizeof line, "%" PRIu32 " %s %" PRIu32 " %zu %#" PRIx64 "\n", field.tag, field.name.c_str(),
                  field.width, field.values.size(), field.maximum);
    text += line;
  }
  return text;
}

std::string differences(const Snapshot& a, const Snapshot& b, const std::vector<std::string>& except) {
  std::string text;
  const auto skipped = [&](const std::string& name) {
    return std::any_of(except.begin(), except.end(), [&](const std::string& e) { return name.starts_with(e); });
  };
  if (a.fields.size() != b.fields.size()) return "different numbers of fields\n";
  for (std::size_t i = 0; i < a.fields.size(); ++i) {
    const SavedField &left = a.fields[i], &right = b.fields[i];
    if (skipped(left.name)) continue;
    if (left.tag != right.tag || left.values.size() != right.values.size()) return "different lists of fields\n";
    for (std::size_t k = 0; k < left.values.size(); ++k) {
      if (left.values[k] == right.values[k]) continue;
      char line[160];
      std::snprintf(line, sizeof line, "%s[%zu]: %#" PRIx64 " and %#" PRIx64 "\n", left.name.c_str(), k, left.values[k],
                    right.values[k]);
      text += line;
    }
  }
  return text;
}

namespace {

vdev_status put(const vdev_state_sink* sink, const vdev_state_field* field, const u64* values) {
  auto& snapshot = *static_cast<Snapshot*>(sink->sink_data);
  snapshot.fields.push_back(
      {field->tag, field->width, field->maximum, field->name, std::vector<u64>(values, values + field->count)});
  return VDEV_OK;
}

vdev_status get(const vdev_state_source* source, const vdev_state_field* field, u64* values) {
  const auto& from = *static_cast<const SnapshotSource*>(source->source_data);
  for (const SavedField& saved : from.snapshot.fields) {
    if (saved.tag != field->tag) continue;
    if (saved.values.size() != field->count) return VDEV_INVALID;
    for (const u64 value : saved.values) {
      if (from.check_maximum && value > field->maximum) return VDEV_INVALID;
    }
    std::copy(saved.values.begin(), saved.values.end(), values);
    return VDEV_OK;
  }
  return VDEV_NOT_FOUND;
}

} // namespace

SnapshotSink::SnapshotSink(Snapshot& to) : sink{&to, &put} {}
SnapshotSource::SnapshotSource(const Snapshot& from) : source{this, &get}, snapshot(from) {}

} // namespace vdev::testing
