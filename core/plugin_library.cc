// Boost.DLL in its header-only form: these two come before it (Boost 1.74).
#include <string>
#include <vector>
// clang-format off
#include <boost/dll/shared_library.hpp>
// clang-format on
#include <cstring>
#include <fmt/format.h>

#include "core/plugin_library.hpp"
#include "vdev/manifest_file.hpp"

namespace transom {

struct PluginLibrary::Handle {
  boost::dll::shared_library library;
};

PluginLibrary::PluginLibrary() : handle_(std::make_unique<Handle>()) {}

PluginLibrary::~PluginLibrary() {
  if (entry_ != nullptr && entry_->deinit != nullptr) entry_->deinit();
}

Result<std::shared_ptr<PluginLibrary>> PluginLibrary::load(const std::string& path) {
  if (auto manifest = vdev::read_manifest(path); !manifest)
    return error(fmt::format("plugin {}: {}", path, manifest.error()));

  std::shared_ptr<PluginLibrary> plugin(new PluginLibrary);
  boost::dll::fs::error_code failure;
  plugin->handle_->library.load(path, failure, boost::dll::load_mode::rtld_now | boost::dll::load_mode::rtld_local);
  if (failure) return error(fmt::format("plugin {}: cannot be loaded: {}", path, failure.message()));
  if (!plugin->handle_->library.has("vdev_entry"))
    return error(fmt::format("plugin {}: exports no symbol vdev_entry", path));
  const auto& entry = plugin->handle_->library.get<const vdev_entry_t>("vdev_entry");
  if (entry.abi_major != VDEV_ABI_MAJOR)
    return error(fmt::format("plugin {}: built for vdev ABI {}.{}, this host speaks {}.{}", path, entry.abi_major,
                             entry.abi_minor, VDEV_ABI_MAJOR, VDEV_ABI_MINOR));
  if (entry.init != nullptr && entry.init(path.c_str()) < 0)
    return error(fmt::format("plugin {}: its init failed", path));
  plugin->entry_ = &entry;
  plugin->factory_ = static_cast<const vdev_factory*>(entry.get_factory(VDEV_FACTORY));
  if (plugin->factory_ == nullptr) return error(fmt::format("plugin {}: offers no {}", path, VDEV_FACTORY));
  return plugin;
}

const vdev_descriptor* PluginLibrary::find(const std::string& id) const {
  for (std::uint32_t i = 0; i < factory_->count(); ++i) {
    const vdev_descriptor* d = factory_->descriptor(i);
    if (d != nullptr && id == d->id) return d;
  }
  return nullptr;
}

} // namespace transom
