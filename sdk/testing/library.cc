#include "vdev/testing/library.hpp"

#include <algorithm>
#include <cstring>
#include <dlfcn.h>
#include <map>
#include <mutex>

namespace vdev::testing {

std::shared_ptr<Library> Library::open(const std::string& path) {
  static std::mutex mutex;
  static std::map<std::string, std::weak_ptr<Library>> opened;
  const std::lock_guard lock(mutex);
  if (auto library = opened[path].lock()) return library;
  std::shared_ptr<Library> library(new Library(path));
  opened[path] = library;
  return library;
}

Library::Library(const std::string& path) : path_(path) {
  const auto fail = [&](const std::string& why) {
    if (handle_) dlclose(handle_);
    throw LoadError(path + ": " + why);
  };
  auto manifest = read_manifest(path);
  if (!manifest) throw LoadError(manifest.error());
  manifest_ = std::move(*manifest);
  handle_ = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle_) fail(dlerror());
  entry_ = static_cast<const vdev_entry_t*>(dlsym(handle_, "vdev_entry"));
  if (!entry_) fail("no symbol vdev_entry: not a vdev plugin");
  if (entry_->abi_major != VDEV_ABI_MAJOR) {
    fail("ABI major " + std::to_string(entry_->abi_major) + ", this host speaks " + std::to_string(VDEV_ABI_MAJOR));
  }
  if (const vdev_status status = entry_->init(path.c_str()); status < 0) {
    fail("vdev_entry.init answered " + std::to_string(status));
  }
  factory_ = static_cast<const vdev_factory*>(entry_->get_factory(VDEV_FACTORY));
  if (!factory_) {
    entry_->deinit();
    fail("no factory " VDEV_FACTORY);
  }
}

Library::~Library() {
  entry_->deinit();
  dlclose(handle_);
}

std::vector<const vdev_descriptor*> Library::descriptors() const {
  std::vector<const vdev_descriptor*> all;
  for (u32 i = 0; i < factory_->count(); ++i) all.push_back(factory_->descriptor(i));
  return all;
}

const vdev_descriptor& Library::find(const std::string& id) const {
  std::string known;
  for (const vdev_descriptor* descriptor : descriptors()) {
    if (id.empty() || id == descriptor->id) return *descriptor;
    known += std::string(known.empty() ? "" : ", ") + descriptor->id;
  }
  throw LoadError(path_ + ": no device '" + id + "'; it has: " + known);
}

vdev_region region_of(const vdev_descriptor& descriptor, u32 index) {
  vdev_region region{};
  if (index >= descriptor.region_count) return region;
  const auto* record = reinterpret_cast<const char*>(descriptor.regions);
  for (u32 i = 0; i < index; ++i) record += reinterpret_cast<const vdev_region*>(record)->size;
  const u32 size = reinterpret_cast<const vdev_region*>(record)->size;
  std::memcpy(&region, record, std::min<std::size_t>(size, sizeof region));
  return region;
}

} // namespace vdev::testing
