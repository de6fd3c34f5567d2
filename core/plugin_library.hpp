// A loaded device plugin. The file is examined first (ELF bounds, manifest, ABI version), because opening a library
// runs its constructors, and the loader itself faults on a truncated file.
#pragma once

#include <memory>
#include <string>

#include "core/result.hpp"
#include "vdev/vdev.h"

namespace transom {

class PluginLibrary {
 public:
  static Result<std::shared_ptr<PluginLibrary>> load(const std::string& path);
  ~PluginLibrary();
  PluginLibrary(const PluginLibrary&) = delete;
  PluginLibrary& operator=(const PluginLibrary&) = delete;

  // Null: the library has no device of that id. The descriptor lives as long as the library.
  const vdev_descriptor* find(const std::string& id) const;
  const vdev_factory& factory() const { return *factory_; }

 private:
  struct Handle;
  PluginLibrary();

  std::unique_ptr<Handle> handle_;
  const vdev_entry_t* entry_ = nullptr;
  const vdev_factory* factory_ = nullptr;
};

} // namespace transom
