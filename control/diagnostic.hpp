// What is wrong with a configuration, and where each of its values stands.
#pragma once

#include <map>
#include <string>

namespace transom::control {

struct Diagnostic {
  std::string where; // "vm.toml:12:5" or "--set disk.0.as"
  std::string key;   // "disk.0.as"; empty for the file as a whole
  std::string what;  // found and accepted
  std::string text() const { return key.empty() ? where + ": " + what : where + ": " + key + ": " + what; }
};

// Key → "vm.toml:12:5", or the option of the command line that gave the value.
class Places {
 public:
  void add(const std::string& key, std::string where) { places_[key] = std::move(where); }
  // Of the key, else of the nearest table around it: a key that is missing is reported where it could have stood.
  std::string of(std::string key) const {
    for (;;) {
      if (const auto found = places_.find(key); found != places_.end()) return found->second;
      if (key.empty()) return "command line";
      const size_t dot = key.rfind('.');
      key.resize(dot == std::string::npos ? 0 : dot);
    }
  }

 private:
  std::map<std::string, std::string> places_;
};

} // namespace transom::control
