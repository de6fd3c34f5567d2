// Reading one TOML table with checks: every getter notes what it looked at, says what was wrong, and finish() reports
// the keys that nobody asked for.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <toml++/toml.h>
#include <vector>

#include "control/config.hpp"

namespace transom::control {

// What is wrong so far.
class Report {
 public:
  explicit Report(std::string file) : file_(std::move(file)) {}
  // Notes where every value of `root` stands. `options`: key → the option of the command line that set it.
  void note_places(const toml::table& root, const std::map<std::string, std::string>& options);
  void add(const std::string& key, std::string what) { errors.push_back({places.of(key), key, std::move(what)}); }
  std::string position(const toml::source_region& region) const;

  std::vector<Diagnostic> errors;
  Places places;

 private:
  void note(const toml::node& node, const std::string& key, const std::string& option,
            const std::map<std::string, std::string>& options);

  std::string file_;
};

class TableReader {
 public:
  TableReader(const toml::table& table, std::string path, Report& report)
      : table_(table), path_(std::move(path)), report_(report) {}

  std::optional<std::string> text(const std::string& key);
  std::optional<bool> boolean(const std::string& key);
  std::optional<u64> integer(const std::string& key, u64 minimum, u64 maximum);
  std::optional<u64> size(const std::string& key); // "512M", or a number of bytes
  // One of a fixed list of words; `later`: words that are known but not in this version.
  std::optional<std::string> word(const std::string& key, const std::vector<std::string>& accepted,
                                  const std::vector<std::string>& later = {});
  std::optional<std::vector<std::string>> words(const std::string& key, const std::vector<std::string>& accepted);
  const toml::table* table(const std::string& key);
  std::vector<const toml::table*> tables(const std::string& key); // [[key]]
  void later(const std::string& key); // known, and an error that says that this version does not have it
  void finish();                      // unknown keys

  void fail(const std::string& key, std::string what) { report_.add(full(key), std::move(what)); }
  std::string full(const std::string& key) const { return path_.empty() ? key : path_ + "." + key; }
  bool has(const std::string& key) const { return table_.contains(key); }

 private:
  const toml::node* find(const std::string& key);

  const toml::table& table_;
  std::string path_;
  Report& report_;
  std::set<std::string> seen_;
};

// How a value is shown in an error.
std::string shown(const toml::node& node);

} // namespace transom::control
