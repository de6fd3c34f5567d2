// A transom-dom0 that is about to die, with this process in the hypervisor's place: it holds the memfds, puts requests
// on the ioreq page, and looks at what is left.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/domain_memory.hpp"
#include "core/domain_plan.hpp"
#include "tests/guests/harness.hpp"

namespace transom::tests {

// What one dispatch may change, of the device in slot 0.
struct DeviceImage {
  std::vector<u8> state;
  std::vector<Effect> effects; // committed since `from`
  u32 posted_head = 0;
  std::vector<u32> block_slots; // their states
  u32 stream_tail = 0;
};

class HostUnderTest {
 public:
  HostUnderTest(const DevicePlan& device, const CrashPlan& crash);
  ~HostUnderTest();
  HostUnderTest(const HostUnderTest&) = delete;
  HostUnderTest& operator=(const HostUnderTest&) = delete;

  bool wait_ready(); // false: it died, or refused to start
  // A synchronous access of vCPU 0: puts it on the page, and waits for the answer or the death of the host.
  struct Answer {
    bool answered = false;
    u64 value = 0;
  };
  Answer access(IoreqType type, u16 region, u64 offset, u32 width, u64 value, bool read);
  void post(u8 region, u32 offset, u8 width, u64 value); // rings the doorbell
  void raise(u32 input, u64 level);                      // an interrupt input, posted likewise
  bool wait_posted();                                    // true: taken; false: the host died
  bool died_by_kill();                                   // waits for it

  ServerPage& page() const { return memory_.server(0); }
  u64 last_request() const { return request_id_; }
  DeviceImage image(u32 effects_from) const { return image_of(page(), effects_from); }
  static DeviceImage image_of(const ServerPage& page, u32 effects_from);

 private:
  bool dead(int wait_ms);
  void put(const PostedRecord& record);

  Scratch folder_;
  DomainPlan plan_;
  DomainMemory memory_;
  int pid_ = -1, socket_ = -1, status_ = 0;
  bool reaped_ = false;
  u64 request_id_ = 0;
};

// A copy of a server page, for what must not happen to the original.
std::shared_ptr<ServerPage> copy_of(const ServerPage& page);

} // namespace transom::tests
