#include "vdev/testing/bench.hpp"

#include <algorithm>
#include <cstring>

namespace vdev::testing {

using Phase = FakeHost::Phase;

namespace {

// The configuration as a host hands it over: known keys, accepted values, defaults filled in.
Options with_defaults(Options options, const Library& library) {
  const vdev_descriptor& descriptor = library.find(options.device);
  const ManifestDevice* device = library.manifest().find(descriptor.id);
  if (!device) throw LoadError(library.path() + ": its manifest does not name " + descriptor.id);
  for (const auto& [key, value] : options.config) {
    const ManifestConfig* known = device->find_key(key);
    const std::string wrong = known ? check_config_value(*known, value) : "no such key in the manifest";
    if (!wrong.empty()) throw LoadError(device->id + ": configuration key '" + key + "': " + wrong);
  }
  for (const ManifestConfig& key : device->config) {
    if (!key.default_value.empty()) options.config.try_emplace(key.key, key.default_value);
    if (key.required && !options.config.contains(key.key)) {
      throw LoadError(device->id + ": configuration key '" + key.key + "' is required");
    }
  }
  return options;
}

} // namespace

Bench::Bench(std::shared_ptr<Library> library, Options options)
    : host(with_defaults(options, *library)),
      options_(std::move(options)),
      library_(std::move(library)),
      descriptor_(library_->find(options_.device)) {
  for (u32 i = 0; i < descriptor_.region_count; ++i) regions_.push_back(region_of(descriptor_, i));
  const ManifestDevice& promised = *library_->manifest().find(descriptor_.id);
  host.irq_count = promised.irq_count;
  host.drive_count = promised.drive_count;
  host.stream_count = promised.stream_count;
  host.state_limit = promised.state_bytes;
  host.bulk_limit = promised.bulk_bytes;
  create();
  make_functions();
  after_entry();
}

Bench::~Bench() {
  if (device_) destroy();
}

void Bench::create() {
  {
    const FakeHost::Entry entry(host, Phase::Control, "create");
    device_ = library_->factory().create(host.abi(), descriptor_.id);
  }
  if (!device_) throw CreationFailed(std::string(descriptor_.id) + ": create answered null", VDEV_FAILED);
  vdev_status status;
  {
    const FakeHost::Entry entry(host, Phase::Init, "init");
    status = device_->init(device_);
  }
  if (status < 0) {
    std::string text = std::string(descriptor_.id) + ": init answered " + std::to_string(status);
    for (const std::string& line : host.log) text += "; " + line;
    destroy();
    throw CreationFailed(text, status);
  }
  find_extensions();
}

void Bench::destroy() {
  {
    const FakeHost::Entry entry(host, Phase::Control, "destroy");
    device_->destroy(device_);
    host.set_gone();
  }
  device_ = nullptr;
}

const void* Bench::extension(const char* id) {
  const FakeHost::Entry entry(host, Phase::Any, "get_extension");
  return device_->get_extension(device_, id);
}

void Bench::find_extensions() {
  state_ = static_cast<const vdev_state*>(extension(VDEV_STATE));
  timer_ = static_cast<const vdev_timer*>(extension(VDEV_TIMER));
  stream_ = static_cast<const vdev_stream*>(extension(VDEV_STREAM));
  block_ = static_cast<const vdev_block_done*>(extension(VDEV_BLOCK_DONE));
  inspect_ = static_cast<const vdev_inspect*>(extension(VDEV_INSPECT));
  pci_ = static_cast<const vdev_pci*>(extension(VDEV_PCI));
  posted_ = static_cast<const vdev_posted*>(extension(VDEV_POSTED));
  runs_ = static_cast<const vdev_pio_string*>(extension(VDEV_PIO_STRING));
  lifecycle_ = static_cast<const vdev_lifecycle*>(extension(VDEV_LIFECYCLE));
  irq_in_ = static_cast<const vdev_irq_in*>(extension(VDEV_IRQ_IN));
  intack_ = static_cast<const vdev_intack*>(extension(VDEV_INTACK));
}

// What a host does after every entry: ask for the deadline, hand over waiting bytes, complete what may complete.
void Bench::after_entry() {
  armed_ = next_event();
  if (delivering_) return;
  delivering_ = true;
  for (auto& [index, stream] : host.streams) {
    while (!stream.queued.empty()) {
      const u32 sent = send(stream.queued, index);
      if (sent == 0) break;
      stream.queued.erase(0, sent);
    }
  }
  if (options_.auto_complete) complete_all();
  delivering_ = false;
}

void Bench::expect_ok(vdev_status status, const char* what) {
  if (status < 0) host.violation(std::string(what) + " answered " + std::to_string(status) + ": the device is broken");
}

u64 Bench::read_device(u32 region, u64 offset, u32 width) {
  u64 value = 0;
  enter("read", [&] { expect_ok(device_->read(device_, region, offset, width, &value), "read"); });
  return width == 8 ? value : value & ((u64{1} << (8 * width)) - 1);
}

namespace {

// The widest accepted access that starts at `offset` and ends within `left` bytes; 0: none.
u32 fitting_width(u32 widths, u64 offset, u64 left) {
  for (u32 width = 8; width >= 1; width /= 2) {
    if ((widths & width) && width <= left && offset % width == 0) return width;
  }
  return 0;
}

} // namespace

u64 Bench::in(u32 region, u64 offset, u32 width) {
  const vdev_region& r = regions_.at(region);
  u64 value = 0;
  for (u32 done = 0; done < width;) {
    const u64 at = offset + done;
    const u32 least = r.widths & (~r.widths + 1);
    u32 step = fitting_width(r.widths, at, width - done);
    u64 part = ~u64{0};
    if (at >= r.length) {
      step = 1;
    } else if (step != 0) {
      part = read_device(region, at, step);
    } else {
      const u64 base = at & ~u64{least - 1};
      step = u32(std::min<u64>(base + least - at, width - done));
      part = read_device(region, base, least) >> (8 * (at - base));
    }
    const u64 ones = step == 8 ? ~u64{0} : (u64{1} << (8 * step)) - 1;
    value |= (part & ones) << (8 * done);
    done += step;
  }
  return value;
}

void Bench::out(u32 region, u64 offset, u32 width, u64 value) {
  const vdev_region& r = regions_.at(region);
  for (u32 done = 0; done < width;) {
    const u64 at = offset + done;
    const u32 step = at < r.length ? fitting_width(r.widths, at, width - done) : 0;
    if (step == 0) {
      ++host.dropped_writes;
      ++done;
      continue;
    }
    const u64 part = value >> (8 * done) & (step == 8 ? ~u64{0} : (u64{1} << (8 * step)) - 1);
    const std::size_t events = host.events.size();
    enter("write", [&] {
      expect_ok(device_->write(device_, region, at, step, part), "write");
      if (host.events.size() != events && is_posted(region, at, step)) {
        host.violation("a posted write changed an output: " + to_string(host.events.back()));
      }
    });
    done += step;
  }
}

bool Bench::is_posted(u32 region, u64 offset, u32 width) const {
  for (u32 i = 0; posted_ && i < posted_->range_count; ++i) {
    const vdev_posted_range& range = posted_->ranges[i];
    if (range.region == region && offset >= range.offset && offset + width <= range.offset + range.length) return true;
  }
  return false;
}

u32 Bench::region(std::string_view name) const {
  for (u32 i = 0; i < regions_.size(); ++i) {
    if (regions_[i].name == name) return i;
  }
  throw std::out_of_range("no region '" + std::string(name) + "'");
}

std::optional<u64> Bench::peek(u32 region, u64 offset, u32 width) {
  if (!inspect_) return std::nullopt;
  u64 value = 0;
  vdev_status status = VDEV_OK;
  enter("peek", [&] { status = inspect_->peek(device_, region, offset, width, &value); });
  if (status < 0) return std::nullopt;
  return width == 8 ? value : value & ((u64{1} << (8 * width)) - 1);
}

std::vector<u8> Bench::in_run(u32 region, u64 offset, u32 width, u32 count) {
  std::vector<u8> data(std::size_t{width} * count);
  if (runs_ && fitting_width(regions_.at(region).widths, offset, width) == width) {
    enter("read_run",
          [&] { expect_ok(runs_->read_run(device_, region, offset, width, count, data.data()), "read_run"); });
    return data;
  }
  for (u32 i = 0; i < count; ++i) {
    const u64 value = in(region, offset, width);
    std::memcpy(data.data() + std::size_t{i} * width, &value, width);
  }
  return data;
}

void Bench::out_run(u32 region, u64 offset, u32 width, std::span<const u8> data) {
  const u32 count = u32(data.size() / width);
  if (runs_ && fitting_width(regions_.at(region).widths, offset, width) == width) {
    return enter("write_run",
                 [&] { expect_ok(runs_->write_run(device_, region, offset, width, count, data.data()), "write_run"); });
  }
  for (u32 i = 0; i < count; ++i) {
    u64 value = 0;
    std::memcpy(&value, data.data() + std::size_t{i} * width, width);
    out(region, offset, width, value);
  }
}

u64 Bench::next_event() {
  if (!timer_) return VDEV_NEVER;
  const FakeHost::Entry entry(host, Phase::Dispatch, "next_event");
  std::vector<u8> before;
  if (polls_purely) before.assign(host.state_memory().begin(), host.state_memory().end());
  const u64 deadline = timer_->next_event(device_);
  if (!polls_purely) return deadline;
  if (timer_->next_event(device_) != deadline) host.violation("next_event answered twice differently");
  if (!std::equal(before.begin(), before.end(), host.state_memory().begin()))
    host.violation("next_event changed the state");
  return deadline;
}

// Fires what is due now; how often. A device whose deadline does not move on is reported, and not called any more.
u32 Bench::fire_due() {
  u32 fired = 0;
  if (timer_ && next_event() != armed_)
    host.violation("next_event changed without an entry: it is no function of the state");
  for (; timer_ && !stuck_ && armed_ <= host.now; ++fired) {
    if (fired == 10000) {
      host.violation("expire leaves a deadline that is already over, time after time");
      stuck_ = true;
    }
    enter("expire", [&] { timer_->expire(device_, host.now); });
  }
  return fired;
}

void Bench::step(u64 ns, u64 most_firings) {
  const u64 end = host.now + ns;
  for (u64 fired = 0;;) {
    fired += fire_due();
    if (fired >= most_firings) return;
    if (stuck_ || armed_ > end) {
      host.now = end;
      return;
    }
    host.now = armed_;
  }
}

void Bench::step_late(u64 ns) {
  host.now += ns;
  fire_due();
}

bool Bench::irq(u32 output) const {
  const auto found = host.irq_levels.find(output);
  return found != host.irq_levels.end() && found->second;
}

u32 Bench::rising_edges(u32 output) const {
  return u32(std::count_if(host.events.begin(), host.events.end(), [output](const Event& event) {
    return event.kind == EventKind::Irq && event.a == output && event.b == 1;
  }));
}

u32 Bench::irq_index(std::string_view name) const {
  for (u32 i = 0; i < descriptor_.irq_count; ++i) {
    if (descriptor_.irq_names[i] == name) return i;
  }
  throw std::out_of_range("no interrupt output '" + std::string(name) + "'");
}

void Bench::irq_in(u32 input, bool level) {
  if (input >= irq_inputs()) throw std::out_of_range("no interrupt input " + std::to_string(input));
  enter("irq_in", [&] { irq_in_->set_level(device_, input, level); });
}

u32 Bench::irq_inputs() { return irq_in_ ? irq_in_->count(device_) : 0; }

u8 Bench::acknowledge() {
  if (!intack_) throw std::out_of_range("the device has no vdev.intack/1");
  u8 vector = 0;
  enter("acknowledge", [&] { vector = intack_->acknowledge(device_); });
  return vector;
}

u32 Bench::room(u32 stream) {
  if (!stream_) return 0;
  u32 room = 0;
  const FakeHost::Entry entry(host, Phase::Dispatch, "room");
  room = stream_->room(device_, stream);
  return room;
}

u32 Bench::send(std::string_view bytes, u32 stream) {
  const u32 length = u32(std::min<std::size_t>(bytes.size(), room(stream)));
  if (length == 0) return 0;
  enter("receive", [&] { stream_->receive(device_, stream, reinterpret_cast<const u8*>(bytes.data()), length); });
  return length;
}

void Bench::queue(std::string_view bytes, u32 stream) {
  host.streams[stream].queued += bytes;
  after_entry();
}

void Bench::writable(u32 stream, u64 accepts) {
  host.streams[stream].accepts = accepts;
  if (stream_ && stream_->writable) enter("writable", [&] { stream_->writable(device_, stream); });
}

void Bench::reset() {
  host.pending.clear();
  reset_functions();
  enter("reset", [&] { device_->reset(device_); });
}
void Bench::pause() {
  if (lifecycle_) enter("pause", [&] { lifecycle_->pause(device_); });
}
void Bench::resume() {
  if (lifecycle_) enter("resume", [&] { lifecycle_->resume(device_); });
}

void Bench::deliver(const FakeHost::Completion& done) {
  if (block_) enter("block_done", [&] { block_->done(device_, done.drive, done.tag, done.status, done.bytes); });
}

u32 Bench::complete(u32 count) {
  u32 completed = 0;
  for (; completed < count && !host.pending.empty(); ++completed) {
    if (completed == 65536) {
      host.violation("completions bring forth requests without end");
      break;
    }
    deliver(host.finish(0));
  }
  return completed;
}

void Bench::complete_at(std::size_t index) {
  if (index >= host.pending.size()) throw std::out_of_range("no pending request " + std::to_string(index));
  deliver(host.finish(index));
}

void Bench::set_medium(u32 drive, bool present, std::vector<u8> data) {
  FakeDrive& d = host.drives.at(drive);
  d.info.medium = present;
  if (!data.empty()) d.data = std::move(data);
  d.info.sectors = d.data.size() / VDEV_SECTOR_BYTES;
  if (block_ && block_->medium_changed) enter("medium_changed", [&] { block_->medium_changed(device_, drive); });
}

} // namespace vdev::testing
