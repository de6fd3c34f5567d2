// Reading one TOML table with checks: every getter notes what it looked at, says what was wrong, and finish() reports
// the keys that nobody asked for.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <toml++/toml.h>
#include <vector>

#include "control/config.hpp"

namespace transom::control {

// Where each value came from, and what is wrong with it.
class Report {
 public:
  explicit Report(std::string file) : file_(std::move(file)) {}
  void add(const toml::node* at, const std::string& key, std::string what);
  void add_file(std::string what) { errors.push_back({file_, "", std::move(what)}); }
  std::string where(const toml::node* at, const std::string& key) const;
  // Values that came from the command line: key → option text.
  void from_option(const std::string& key, const std::string& option) { options_.emplace_back(key, option); }
  bool is_from_option(const std::string& key) const;
  const std::string& file() const { return file_; }

  std::vector<Diagnostic> errors;

 private:
  std::string file_;
  std::vector<std::pair<std::string, std::string>> options_;
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

  void fail(const std::string& key, std::string what) { report_.add(table_.get(key), full(key), std::move(what)); }
  std::string full(const std::string& key) const { return path_.empty() ? key : path_ + "." + key; }
  std::string where(const std::string& key) const { return report_.where(table_.get(key), full(key)); }
  const toml::table& raw() const { return table_; }
  void seen(const std::string& key) { seen_.insert(key); }

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
