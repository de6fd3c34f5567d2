#include <gtest/gtest.h>

#include "vdev/testing/properties.hpp"

namespace pvpanic {
namespace {

using namespace vdev;
using namespace vdev::testing;

std::vector<u64> panics(const Bench& b) {
  std::vector<u64> values;
  for (const Event& e : b.events()) {
    if (e.kind == EventKind::Wire && e.a == VDEV_WIRE_PANIC) values.push_back(e.b);
  }
  return values;
}

VDEV_PROPERTIES(Pvpanic, "pvpanic.so", "org.transom.pvpanic", .schema = "pvpanic.schema");

TEST(Pvpanic, ReadNamesTheTwoEventsItTakes) {
  Bench b("pvpanic.so");
  EXPECT_EQ(b.in(0), 0x03u);
}

TEST(Pvpanic, EachEventBitReachesTheWire) {
  struct Case {
    u8 written;
    std::vector<u64> told;
  };
  for (const Case& c : {Case{0x00, {}}, Case{0x01, {1}}, Case{0x02, {2}}, Case{0x03, {1, 2}}, Case{0xfc, {}}}) {
    Bench b("pvpanic.so");
    b.out(0, c.written);
    EXPECT_EQ(panics(b), c.told) << int(c.written);
    EXPECT_EQ(b.field("reported"), c.written & 3u);
    EXPECT_EQ(b.in(0), 0x03u);
  }
}

} // namespace
} // namespace pvpanic
