#include "vdev/testing/fake_host.hpp"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

namespace vdev::testing {

std::string to_string(const Event& event) {
  static constexpr const char* NAMES[] = {"irq",  "wire",      "shadow", "map",   "route",
                                          "sent", "dma-write", "submit", "cancel"};
  char text[160];
  std::snprintf(text, sizeof text, "%" PRIu64 " ns %s %#" PRIx64 " %#" PRIx64 " %#" PRIx64, event.time,
                NAMES[std::size_t(event.kind)], event.a, event.b, event.c);
  return text;
}

DriveOptions blank_disk(u64 sectors) {
  DriveOptions drive;
  drive.data.resize(sectors * VDEV_SECTOR_BYTES);
  return drive;
}

FakeHost::~FakeHost() {
  drop_state();
  for (const std::string& text : violations_) {
    if (on_violation) {
      on_violation(text);
    } else {
      std::fprintf(stderr, "vdev bench: %s\n", text.c_str());
    }
  }
  if (!violations_.empty() && !on_violation) std::abort();
}

void FakeHost::violation(const std::string& text) {
  const std::lock_guard lock(violations_mutex_);
  if (violations_.size() < 20) violations_.push_back(text + " (in " + entry_name_ + ")");
}

std::vector<std::string> FakeHost::take_violations() {
  const std::lock_guard lock(violations_mutex_);
  return std::exchange(violations_, {});
}

FakeHost::Entry::Entry(FakeHost& host, Phase phase, const char* what) : host_(host), before_(host.phase_) {
  if (before_ != Phase::Outside) host.violation(std::string("the bench was re-entered for ") + what);
  host.phase_ = phase;
  host.thread_ = std::this_thread::get_id();
  host.entry_name_ = what;
  host.steps_ = 0;
}
FakeHost::Entry::~Entry() {
  if (host_.phase_ != Phase::Gone) host_.phase_ = before_;
}

bool FakeHost::allowed(const char* call, bool control_only) {
  const Phase phase = phase_;
  const std::string what = call;
  if (phase == Phase::Gone) return violation(what + " was called after destroy returned"), false;
  if (phase == Phase::Outside) return violation(what + " was called outside of every device call"), false;
  if (thread_ != std::this_thread::get_id()) return violation(what + " was called from another thread"), false;
  if (phase == Phase::Any) return violation(what + " was called in get_extension, which is [any]"), false;
  if (control_only && phase == Phase::Dispatch)
    return violation(what + " is [control], and was called in dispatch"), false;
  if (!control_only && phase == Phase::Control)
    return violation(what + " is [dispatch], and was called in control"), false;
  return spend(1, call);
}

bool FakeHost::spend(u64 steps, const char* call) {
  const u64 before = steps_;
  steps_ += steps;
  if (steps_ <= options_.step_budget) return true;
  if (before <= options_.step_budget) violation(std::string("the step budget of one entry is used up, at ") + call);
  return false;
}

void FakeHost::set_output(EventKind kind, u64 key, u64 b, u64 c) {
  const auto [at, first] = outputs_.try_emplace({kind, key}, 0, 0);
  const bool changed = at->second != std::pair{b, c} || (first && kind != EventKind::Irq);
  at->second = {b, c};
  if (changed && !importing_) record(kind, key, b, c);
}

void FakeHost::begin_import() {
  importing_ = true;
  before_import_ = outputs_;
}

void FakeHost::end_import() {
  importing_ = false;
  for (const auto& [output, value] : outputs_) {
    const auto before = before_import_.find(output);
    const bool low = output.first == EventKind::Irq && value == std::pair<u64, u64>{};
    if (before == before_import_.end() ? !low : before->second != value) {
      record(output.first, output.second, value.first, value.second);
    }
  }
}

void FakeHost::drop_state() {
  if (state_) ::operator delete (state_, std::align_val_t{64});
  state_ = nullptr;
  state_bytes_ = 0;
  state_given_ = state_kept_ = false;
}

void FakeHost::keep_state() {
  state_given_ = false;
  state_kept_ = state_ != nullptr;
}

u8* FakeHost::segment_memory(const vdev_segment& segment) {
  const auto within = [&](u64 offset, u64 size) { return offset <= size && segment.length <= size - offset; };
  if (segment.kind == VDEV_SEGMENT_GUEST)
    return within(segment.address, ram.size()) ? ram.data() + segment.address : nullptr;
  const auto buffer = bulk.find(u32(segment.address >> 32));
  const u64 offset = segment.address & 0xffffffff;
  if (segment.kind != VDEV_SEGMENT_BULK || buffer == bulk.end()) return nullptr;
  return within(offset, buffer->second.bytes) ? buffer->second.data() + offset : nullptr;
}

vdev_status FakeHost::transfer(const PendingRequest& request) {
  FakeDrive& drive = drives[request.drive];
  const u32 op = request.op & 0xff;
  if (op == VDEV_BLOCK_FLUSH) return VDEV_OK;
  if (!drive.info.medium) return VDEV_IO_ERROR;
  const u64 size = drive.data.size();
  if (request.bytes > size || request.sector > (size - request.bytes) / VDEV_SECTOR_BYTES) return VDEV_IO_ERROR;
  if (op != VDEV_BLOCK_READ && drive.info.read_only) return VDEV_READ_ONLY;
  u8* at = drive.data.data() + request.sector * VDEV_SECTOR_BYTES;
  if (op == VDEV_BLOCK_DISCARD) {
    std::fill_n(at, request.bytes, u8{0});
    return VDEV_OK;
  }
  for (const vdev_segment& segment : request.segments) {
    if (!segment_memory(segment)) return VDEV_BUS_ERROR;
  }
  for (const vdev_segment& segment : request.segments) {
    u8* memory = segment_memory(segment);
    if (op == VDEV_BLOCK_READ) {
      std::memcpy(memory, at, segment.length);
    } else {
      std::memcpy(at, memory, segment.length);
    }
    at += segment.length;
  }
  return VDEV_OK;
}

FakeHost::Completion FakeHost::finish(std::size_t index) {
  const PendingRequest request = pending[index];
  pending.erase(pending.begin() + std::ptrdiff_t(index));
  vdev_status status = VDEV_OK;
  if (block_fails_in > 0 && --block_fails_in == 0) {
    status = block_error;
  } else {
    status = transfer(request);
  }
  return {request.drive, request.tag, status, status == VDEV_OK ? request.bytes : 0};
}

} // namespace vdev::testing
