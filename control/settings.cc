#include "control/settings.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace transom::control {

namespace {

constexpr size_t MOST_TABLES = 64; // [[disk]] and the like

std::vector<std::string> split(const std::string& key) {
  std::vector<std::string> parts(1);
  for (const char c : key) {
    if (c == '.')
      parts.emplace_back();
    else
      parts.back() += c;
  }
  return parts;
}

bool is_index(const std::string& part) {
  return !part.empty() && part.size() < 4 &&
         std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// disk.0: the n-th table of an array; the one behind the last is made.
toml::table* element(toml::table& at, const std::string& name, size_t n) {
  if (!at.contains(name)) at.insert(name, toml::array());
  auto* array = at.get(name)->as_array();
  if (array == nullptr || n > array->size() || n >= MOST_TABLES) return nullptr;
  if (n == array->size()) array->push_back(toml::table());
  return array->get(n)->as_table();
}

void assign(toml::table& at, const std::string& key, const Setting& setting) {
  if (!setting.literal) {
    try {
      const toml::table parsed = toml::parse("v = " + setting.value);
      if (parsed.size() == 1) return void(at.insert_or_assign(key, *parsed.get("v")));
    } catch (const toml::parse_error&) { // a bare word
    }
  }
  at.insert_or_assign(key, setting.value);
}

} // namespace

std::string apply(toml::table& root, const Setting& setting) {
  const std::vector<std::string> parts = split(setting.key);
  if (std::any_of(parts.begin(), parts.end(), [](const std::string& p) { return p.empty(); }))
    return "a part of the key is empty; accepted: memory=512M, boot.cmdline=…, disk.0.path=…";
  toml::table* at = &root;
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    const std::string& name = parts[i];
    if (i + 2 < parts.size() && is_index(parts[i + 1])) {
      at = element(*at, name, std::stoul(parts[++i]));
      if (at == nullptr) return fmt::format("there is no {}.{}", name, parts[i]);
      continue;
    }
    if (!at->contains(name)) at->insert(name, toml::table());
    at = at->get(name)->as_table();
    if (at == nullptr) return fmt::format("{} is not a table; an element of an array is {}.0", name, name);
  }
  assign(*at, parts.back(), setting);
  return "";
}

} // namespace transom::control
