#include "control/runtime_folder.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

namespace transom::control {

Result<std::string> runtime_folder() {
  const char* run = std::getenv("XDG_RUNTIME_DIR");
  const std::string folder =
      run != nullptr && *run != 0 ? std::string(run) + "/transom" : fmt::format("/tmp/transom-{}", ::getuid());
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST)
    return error(fmt::format("{}: {}", folder, std::strerror(errno)));
  struct stat st {};
  if (::lstat(folder.c_str(), &st) != 0 || !S_ISDIR(st.st_mode) || st.st_uid != ::getuid() || (st.st_mode & 077) != 0)
    return error(fmt::format("{}: is not a folder of yours with mode 0700; remove it or set XDG_RUNTIME_DIR", folder));
  return folder;
}

Result<std::string> socket_path(const std::string& domain) {
  auto folder = runtime_folder();
  if (!folder) return folder;
  const std::string path = *folder + "/" + domain + ".sock";
  if (path.size() > 107) return error(fmt::format("{}: is too long for a socket; set XDG_RUNTIME_DIR", path));
  return path;
}

std::vector<std::string> socket_names() {
  std::vector<std::string> names;
  auto folder = runtime_folder();
  if (!folder) return names;
  std::error_code failure;
  for (const auto& entry : std::filesystem::directory_iterator(*folder, failure))
    if (entry.path().extension() == ".sock") names.push_back(entry.path().stem().string());
  std::sort(names.begin(), names.end());
  return names;
}

} // namespace transom::control
