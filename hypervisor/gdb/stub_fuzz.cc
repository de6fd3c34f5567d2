// What a client may send: the input is a stream of pieces, each a packet (framed here, so that it gets past its
// checksum), bytes as they are, or something that the domain does.
#include <cstdlib>

#include "hypervisor/gdb/stub.hpp"
#include "hypervisor/gdb/test_target.hpp"

using namespace transom;
using namespace transom::gdb;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr size_t MOST_OUTPUT = 4 * MAX_PACKET + 64; // of one packet
  TestTarget target(3);
  Stub stub(target);
  std::string_view left(reinterpret_cast<const char*>(data), size);
  while (left.size() >= 2 && !stub.ended()) {
    const u8 kind = static_cast<u8>(left[0]), length = static_cast<u8>(left[1]);
    const std::string_view piece = left.substr(2, length);
    left.remove_prefix(2 + piece.size());
    switch (kind % 8) {
      case 0: stub.receive(piece); break;
      case 1:
        target.stops.push_back(length % 3);
        stub.stopped();
        break;
      case 2: stub.receive("\x03"); break;
      default: stub.receive(packet(piece)); break;
    }
    if (stub.take_output().size() > MOST_OUTPUT * (kind % 8 == 0 ? 256 : 1)) std::abort();
  }
  if (!stub.ended()) stub.detach();
  if (!target.killed && target.standing) std::abort(); // who hangs up leaves a running domain behind
  return 0;
}
