#include "control/file_checks.hpp"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

namespace transom::control {

namespace fs = std::filesystem;

namespace {

constexpr unsigned SECTOR_BYTES = 512;

std::string denied(const std::string& path, int mode) {
  return ::access(path.c_str(), mode) == 0 ? "" : fmt::format("{}: {}", path, std::strerror(errno));
}

// The folder in which a file or socket is to be made.
std::string wrong_folder(const std::string& path) {
  const fs::path folder = fs::path(path).parent_path();
  std::error_code failure;
  if (!fs::is_directory(folder, failure)) return fmt::format("{}: there is no folder {}", path, folder.string());
  return "";
}

} // namespace

std::string wrong_input(const std::string& path) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) return fmt::format("{}: {}", path, std::strerror(errno));
  if (S_ISDIR(st.st_mode)) return fmt::format("{}: is a directory; a file is needed", path);
  if (!S_ISREG(st.st_mode)) return fmt::format("{}: is no regular file", path);
  return denied(path, R_OK);
}

std::string wrong_image(const std::string& path, bool read_only) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0)
    return fmt::format("{}: {}{}", path, std::strerror(errno),
                       errno == ENOENT ? fmt::format("; make one with: truncate -s 1G {}", path) : "");
  if (S_ISDIR(st.st_mode)) return fmt::format("{}: is a directory; a raw image file is needed", path);
  if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
    return fmt::format("{}: is neither a file nor a block device; a raw image is needed", path);
  if (S_ISREG(st.st_mode) && st.st_size == 0) return fmt::format("{}: is empty; a raw image file is needed", path);
  if (S_ISREG(st.st_mode) && st.st_size % SECTOR_BYTES != 0)
    return fmt::format("{}: has {} bytes, not a multiple of {}: no raw image", path, st.st_size, SECTOR_BYTES);
  if (const std::string wrong = denied(path, read_only ? R_OK : R_OK | W_OK); !wrong.empty())
    return wrong + (read_only ? "" : "; set readonly = true for an image that may not be written");
  return "";
}

std::string wrong_output(const std::string& path) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) return wrong_folder(path);
  if (S_ISDIR(st.st_mode)) return fmt::format("{}: is a directory; the path of a file is needed", path);
  return denied(path, W_OK);
}

std::string wrong_socket(const std::string& path) {
  struct stat st {};
  if (path.size() >= sizeof sockaddr_un{}.sun_path)
    return fmt::format("{}: {} characters; a socket's path has at most {}", path, path.size(),
                       sizeof sockaddr_un{}.sun_path - 1);
  if (::lstat(path.c_str(), &st) != 0) return wrong_folder(path);
  return S_ISSOCK(st.st_mode) ? "" : fmt::format("{}: exists and is no socket", path);
}

bool same_file(const std::string& a, const std::string& b) {
  std::error_code failure;
  return !a.empty() && !b.empty() && (a == b || fs::equivalent(a, b, failure));
}

} // namespace transom::control
