#include "control/toml_reader.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sstream>

namespace transom::control {

namespace {
const char* type_name(toml::node_type type) {
  switch (type) {
    case toml::node_type::table: return "a table";
    case toml::node_type::array: return "an array";
    case toml::node_type::string: return "a string";
    case toml::node_type::integer: return "an integer";
    case toml::node_type::floating_point: return "a floating-point number";
    case toml::node_type::boolean: return "a boolean";
    default: return "a date or time";
  }
}
// The accepted word nearest to what was typed, if it is near.
std::string suggestion(const std::string& word, const std::vector<std::string>& accepted) {
  const auto distance = [](const std::string& a, const std::string& b) { // Levenshtein
    std::vector<size_t> row(b.size() + 1);
    for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
    for (size_t i = 1; i <= a.size(); ++i) {
      size_t diagonal = row[0];
      row[0] = i;
      for (size_t j = 1; j <= b.size(); ++j) {
        const size_t up = row[j];
        row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
        diagonal = up;
      }
    }
    return row[b.size()];
  };
  for (const std::string& candidate : accepted)
    if (distance(word, candidate) <= 2 && candidate.size() > 2) return fmt::format("; did you mean {}?", candidate);
  return "";
}
} // namespace

std::string shown(const toml::node& node) {
  std::ostringstream out;
  node.visit([&](const auto& n) {
    if constexpr (toml::is_table<decltype(n)> || toml::is_array<decltype(n)>)
      out << type_name(n.type());
    else
      out << toml::node_view<const toml::node>(n);
  });
  return out.str();
}

// ---------------------------------------------------------------------------------------------------- Report

std::string Report::position(const toml::source_region& region) const {
  return fmt::format("{}:{}:{}", file_, region.begin.line, region.begin.column);
}

void Report::note_places(const toml::table& root, const std::map<std::string, std::string>& options) {
  if (!file_.empty()) places.add("", file_);
  for (const auto& [key, value] : root) note(value, std::string(key.str()), "", options);
}

// `option` set what is around this node, if it is not empty.
void Report::note(const toml::node& node, const std::string& key, const std::string& option,
                  const std::map<std::string, std::string>& options) {
  const auto own = options.find(key);
  const std::string& from = own != options.end() ? own->second : option;
  if (!from.empty())
    places.add(key, from);
  else if (node.source().begin) // a table that an option made stands nowhere
    places.add(key, position(node.source()));
  if (const auto* table = node.as_table())
    for (const auto& [k, value] : *table) note(value, fmt::format("{}.{}", key, k.str()), from, options);
  if (const auto* array = node.as_array())
    for (size_t i = 0; i < array->size(); ++i) note((*array)[i], fmt::format("{}.{}", key, i), from, options);
}

// ---------------------------------------------------------------------------------------------------- TableReader

const toml::node* TableReader::find(const std::string& key) {
  seen_.insert(key);
  return table_.get(key);
}

std::optional<std::string> TableReader::text(const std::string& key) {
  const toml::node* node = find(key);
  if (node == nullptr) return {};
  if (const auto* value = node->as_string()) return value->get();
  fail(key, fmt::format("found {} ({}); a string is needed", shown(*node), type_name(node->type())));
  return {};
}

std::optional<bool> TableReader::boolean(const std::string& key) {
  const toml::node* node = find(key);
  if (node == nullptr) return {};
  if (const auto* value = node->as_boolean()) return value->get();
  fail(key, fmt::format("found {} ({}); accepted: true, false", shown(*node), type_name(node->type())));
  return {};
}

std::optional<u64> TableReader::integer(const std::string& key, u64 minimum, u64 maximum) {
  const toml::node* node = find(key);
  if (node == nullptr) return {};
  const auto* value = node->as_integer();
  if (value != nullptr && value->get() >= 0 && static_cast<u64>(value->get()) >= minimum &&
      static_cast<u64>(value->get()) <= maximum)
    return static_cast<u64>(value->get());
  fail(key, fmt::format("found {} ({}); an integer from {} to {} is needed", shown(*node), type_name(node->type()),
                        minimum, maximum));
  return {};
}

std::optional<u64> TableReader::size(const std::string& key) {
  const toml::node* node = find(key);
  if (node == nullptr) return {};
  if (const auto* value = node->as_integer(); value != nullptr && value->get() >= 0)
    return static_cast<u64>(value->get());
  if (const auto* value = node->as_string())
    if (const auto bytes = parse_size(value->get())) return bytes;
  fail(key, fmt::format("found {}; a size is needed, such as \"512M\" or \"2G\" (K, M, G)", shown(*node)));
  return {};
}

std::optional<std::string> TableReader::word(const std::string& key, const std::vector<std::string>& accepted,
                                             const std::vector<std::string>& later) {
  const auto value = text(key);
  if (!value) return {};
  if (std::find(accepted.begin(), accepted.end(), *value) != accepted.end()) return value;
  if (std::find(later.begin(), later.end(), *value) != later.end())
    fail(key,
         fmt::format("\"{}\" is not in this version of Transom yet; accepted: {}", *value, fmt::join(accepted, ", ")));
  else
    fail(key,
         fmt::format("found \"{}\"; accepted: {}{}", *value, fmt::join(accepted, ", "), suggestion(*value, accepted)));
  return {};
}

std::optional<std::vector<std::string>> TableReader::words(const std::string& key,
                                                           const std::vector<std::string>& accepted) {
  const toml::node* node = find(key);
  if (node == nullptr) return {};
  const auto* array = node->as_array();
  std::vector<std::string> values;
  bool good = array != nullptr;
  if (good)
    for (const toml::node& element : *array) {
      const auto* value = element.as_string();
      good = good && value != nullptr && std::find(accepted.begin(), accepted.end(), value->get()) != accepted.end();
      if (good) values.push_back(value->get());
    }
  if (good) return values;
  fail(key, fmt::format("an array is needed whose elements are of: {}", fmt::join(accepted, ", ")));
  return {};
}

const toml::table* TableReader::table(const std::string& key) {
  const toml::node* node = find(key);
  if (node == nullptr) return nullptr;
  if (const auto* value = node->as_table()) return value;
  fail(key, fmt::format("found {}; a table is needed: [{}]", shown(*node), full(key)));
  return nullptr;
}

std::vector<const toml::table*> TableReader::tables(const std::string& key) {
  const toml::node* node = find(key);
  std::vector<const toml::table*> found;
  if (node == nullptr) return found;
  const auto* array = node->as_array();
  if (array != nullptr)
    for (const toml::node& element : *array)
      if (const auto* value = element.as_table()) found.push_back(value);
  if (array == nullptr || found.size() != array->size())
    fail(key, fmt::format("an array of tables is needed: [[{}]]", full(key)));
  return found;
}

void TableReader::later(const std::string& key) {
  if (find(key) != nullptr) fail(key, "is not in this version of Transom yet");
}

void TableReader::finish() {
  const std::vector<std::string> known(seen_.begin(), seen_.end());
  for (const auto& [key, value] : table_) {
    const std::string name(key.str());
    if (seen_.count(name) != 0) continue;
    const std::string what =
        fmt::format("unknown key{}; accepted here: {}", suggestion(name, known), fmt::join(known, ", "));
    const std::string place = report_.places.of(full(name));
    const bool typed = place.starts_with("--") || !key.source().begin;
    report_.errors.push_back({typed ? place : report_.position(key.source()), full(name), what});
  }
}

} // namespace transom::control
