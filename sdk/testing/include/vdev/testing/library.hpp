// A device library, opened as a host opens it. Errors are LoadError with the path and the reason.
#pragma once

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "vdev/cpp/types.hpp"
#include "vdev/manifest_file.hpp"
#include "vdev/vdev.h"

namespace vdev::testing {

struct LoadError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Library {
 public:
  // The same library opened twice at a time is one object; its entry is initialised once.
  static std::shared_ptr<Library> open(const std::string& path);
  ~Library();
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  const std::string& path() const { return path_; }
  const Manifest& manifest() const { return manifest_; } // read before the library was opened
  const vdev_factory& factory() const { return *factory_; }
  std::vector<const vdev_descriptor*> descriptors() const;
  // Empty id: the first device.
  const vdev_descriptor& find(const std::string& id) const;

 private:
  explicit Library(const std::string& path);
  std::string path_;
  Manifest manifest_;
  void* handle_ = nullptr;
  const vdev_entry_t* entry_ = nullptr;
  const vdev_factory* factory_ = nullptr;
};

// Region `index` of a descriptor, walked by the record's own size; missing trailing fields are zero.
vdev_region region_of(const vdev_descriptor& descriptor, u32 index);

} // namespace vdev::testing
