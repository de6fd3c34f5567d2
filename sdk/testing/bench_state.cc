// The bench's snapshots, and its PCI configuration space.
#include <algorithm>
#include <cstring>

#include "vdev/testing/bench.hpp"

namespace vdev::testing {

using Phase = FakeHost::Phase;

Snapshot Bench::save() {
  if (!state_) throw std::out_of_range("the device has no vdev.state/1");
  Snapshot snapshot;
  snapshot.version = descriptor_.state_version;
  SnapshotSink to(snapshot);
  const FakeHost::Entry entry(host, Phase::Dispatch, "save");
  const std::vector<u8> before(host.state_memory().begin(), host.state_memory().end());
  expect_ok(state_->save(device_, &to.sink), "save");
  if (!std::equal(before.begin(), before.end(), host.state_memory().begin())) host.violation("save changed the state");
  return snapshot;
}

vdev_status Bench::restore(const Snapshot& snapshot, bool host_checks) {
  if (!state_) throw std::out_of_range("the device has no vdev.state/1");
  SnapshotSource from(snapshot);
  from.check_maximum = host_checks;
  vdev_status status = VDEV_OK;
  enter("load", [&] { status = state_->load(device_, snapshot.version, &from.source); });
  return status;
}

void Bench::migrate() {
  const Snapshot snapshot = save();
  host.begin_import();
  destroy();
  host.revive();
  host.drop_state();
  create();
  const bool was_delivering = std::exchange(delivering_, true);
  const vdev_status status = restore(snapshot);
  delivering_ = was_delivering;
  host.end_import();
  expect_ok(status, "load of what save gave");
  after_entry();
}

void Bench::restart() {
  host.begin_import();
  destroy();
  host.revive();
  host.keep_state();
  create();
  host.end_import();
  after_entry();
}

u64 Bench::field(std::string_view name, u32 index) { return save().at(name).values.at(index); }

void Bench::set_field(std::string_view name, u64 value, u32 index) {
  Snapshot snapshot = save();
  snapshot.at(name).values.at(index) = value;
  if (const vdev_status status = restore(snapshot); status < 0) {
    throw std::out_of_range("the device refused " + std::string(name) + " = " + std::to_string(value));
  }
}

vdev_status Bench::check(std::span<const u8> state) {
  const FakeHost::Entry entry(host, Phase::Any, "check");
  return state_->check(device_, state.data(), u32(state.size()));
}

namespace {

constexpr u32 COMMAND = 0x04, BAR0 = 0x10, INTERRUPT_LINE = 0x3c;
constexpr u16 COMMAND_WRITABLE = 0x0547; // I/O, memory, bus master, parity, SERR#, interrupt disable

void put16(std::array<u8, 256>& config, u32 at, u32 value) {
  config[at] = u8(value);
  config[at + 1] = u8(value >> 8);
}

u32 get32(const std::array<u8, 256>& config, u32 at) {
  u32 value;
  std::memcpy(&value, &config[at], 4);
  return value;
}

} // namespace

void Bench::make_functions() {
  for (u32 i = 0; pci_ && i < pci_->function_count; ++i) {
    FakeFunction f;
    const auto* record = reinterpret_cast<const u8*>(pci_->functions) + std::size_t{i} * pci_->functions[0].size;
    const u32 size = reinterpret_cast<const vdev_pci_function*>(record)->size;
    std::memcpy(&f.function, record, std::min<std::size_t>(size, sizeof f.function));
    put16(f.config, 0x00, f.function.vendor_id);
    put16(f.config, 0x02, f.function.device_id);
    put16(f.config, 0x06, f.function.status);
    put16(f.config, 0x08, f.function.revision | (f.function.class_code & 0xff) << 8);
    put16(f.config, 0x0a, f.function.class_code >> 8);
    f.config[0x0e] = f.function.header_type;
    put16(f.config, 0x2c, f.function.subsystem_vendor_id);
    put16(f.config, 0x2e, f.function.subsystem_id);
    f.config[0x3d] = f.function.interrupt_pin;
    for (u32 b = 0; b < f.function.bar_count; ++b) {
      const vdev_pci_bar& bar = f.function.bars[b];
      if (bar.index > 5 || bar.region >= regions_.size()) {
        host.violation("a PCI BAR names an index or a region that does not exist");
        continue;
      }
      const u64 length = regions_[bar.region].length;
      if (length == 0 || (length & (length - 1)) != 0) host.violation("a PCI BAR's region is no power of two long");
      const bool io = (bar.type & 0xff) == VDEV_BAR_IO;
      f.bar_mask[bar.index] = u32(~(length - 1)) & (io ? ~3u : ~15u);
      f.config[BAR0 + 4 * bar.index] = u8(io ? 1 : (bar.type & VDEV_BAR_PREFETCHABLE) ? 8 : 0);
      f.bars[bar.index] = bar;
    }
    functions_.push_back(f);
  }
  update_bus_master();
}

void Bench::reset_functions() {
  for (FakeFunction& f : functions_) {
    put16(f.config, COMMAND, 0);
    for (u32 at = BAR0; at < BAR0 + 24; ++at) f.config[at] &= u8(~(f.bar_mask[(at - BAR0) / 4] >> (8 * (at % 4))));
  }
  update_bus_master();
}

void Bench::update_bus_master() {
  if (functions_.empty()) return;
  host.bus_master = std::any_of(functions_.begin(), functions_.end(),
                                [](const FakeFunction& f) { return (f.config[COMMAND] & 4) != 0; });
}

u32 Bench::cfg_read(u32 function, u32 offset, u32 width) {
  const FakeFunction& f = functions_.at(function);
  u32 value = 0;
  if (offset >= 256 || (width != 1 && width != 2 && width != 4) || offset % width != 0) return ~0u;
  if (offset < 0x40) {
    std::memcpy(&value, &f.config[offset], width);
  } else {
    enter("read_config", [&] { value = pci_->read_config(device_, function, offset, width); });
  }
  return width == 4 ? value : value & ((1u << (8 * width)) - 1);
}

void Bench::cfg_write(u32 function, u32 offset, u32 width, u32 value) {
  FakeFunction& f = functions_.at(function);
  if (offset >= 256 || (width != 1 && width != 2 && width != 4) || offset % width != 0) return;
  if (offset >= 0x40) {
    return enter("write_config", [&] { pci_->write_config(device_, function, offset, width, value); });
  }
  for (u32 i = 0; i < width; ++i) {
    const u32 at = offset + i;
    u8 mask = 0;
    if (at < COMMAND + 2 && at >= COMMAND) mask = u8(COMMAND_WRITABLE >> (8 * (at - COMMAND)));
    if (at == INTERRUPT_LINE) mask = 0xff;
    if (at >= BAR0 && at < BAR0 + 24) mask = u8(f.bar_mask[(at - BAR0) / 4] >> (8 * (at % 4)));
    f.config[at] = u8((f.config[at] & ~mask) | (u8(value >> (8 * i)) & mask));
  }
  update_bus_master();
}

u64 Bench::bar(u32 function, u32 index) const {
  const FakeFunction& f = functions_.at(function);
  return get32(f.config, BAR0 + 4 * index) & f.bar_mask.at(index);
}

} // namespace vdev::testing
