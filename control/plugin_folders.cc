#include "control/plugin_folders.hpp"

#include <cstdlib>
#include <filesystem>

namespace transom::control {

namespace fs = std::filesystem;

std::vector<std::string> plugin_folders() {
  std::vector<std::string> folders;
  if (const char* path = std::getenv("TRANSOM_PLUGIN_PATH")) {
    std::string current;
    for (const char* c = path;; ++c) {
      if (*c != ':' && *c != 0) {
        current += *c;
        continue;
      }
      if (!current.empty()) folders.push_back(current);
      current.clear();
      if (*c == 0) break;
    }
  }
  std::error_code failure;
  const fs::path program = fs::read_symlink("/proc/self/exe", failure);
  folders.push_back((program.parent_path().parent_path() / "lib/transom/plugins").string());
#ifdef TRANSOM_MULTIARCH
  folders.push_back((program.parent_path().parent_path() / "lib" / TRANSOM_MULTIARCH / "transom/plugins").string());
#endif
  return folders;
}

std::string find_plugin(const std::string& name) {
  std::error_code failure;
  if (name.empty()) return "";
  if (name.find('/') != std::string::npos) return fs::exists(name, failure) ? fs::absolute(name).string() : "";
  for (const std::string& folder : plugin_folders())
    for (const char* suffix : {"", ".so"})
      if (const fs::path file = fs::path(folder) / (name + suffix); fs::is_regular_file(file, failure))
        return file.string();
  return "";
}

} // namespace transom::control
