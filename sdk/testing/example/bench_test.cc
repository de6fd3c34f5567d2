// The bench's own tests. Every property is shown to fail on a device that breaks it: example/ticker.c, compiled with
// one BROKEN_… at a time.
#include <gmock/gmock.h>

#include "vdev/testing/fuzz.hpp"
#include "vdev/testing/properties.hpp"

using namespace vdev::testing;
using testing::ElementsAre;
using testing::HasSubstr;
using vdev::u32;
using vdev::u64;
using vdev::u8;

namespace {

constexpr const char* TICKER = "org.transom.example.ticker";
enum : u64 { CTRL, STATUS, DATA, ID };

Subject subject(const std::string& file) {
  PropertyOptions options;
  options.read_only = {{0, ID}};
  options.schema = "ticker.schema";
  return Subject::open(file, TICKER, options, __FILE__);
}

struct Broken {
  const char* what;
  std::string (*property)(const Subject&);
  const char* says;
};
void PrintTo(const Broken& broken, std::ostream* out) { *out << broken.what; }

class ABrokenDevice : public testing::TestWithParam<Broken> {};

TEST_P(ABrokenDevice, FailsTheProperty) {
  const std::string file = std::string(BROKEN_DIR) + "/ticker_" + GetParam().what + ".so";
  EXPECT_THAT(GetParam().property(subject(file)), HasSubstr(GetParam().says));
}

TEST_P(ABrokenDevice, AndTheSoundOneHasIt) { EXPECT_EQ(GetParam().property(subject(plugin_path("ticker.so"))), ""); }

INSTANTIATE_TEST_SUITE_P(
    Each, ABrokenDevice,
    testing::Values(Broken{"BROKEN_LEAK", &a_saved_device_goes_on_the_same, "behaves differently"},
                    Broken{"BROKEN_LEAK", &a_restarted_device_goes_on_the_same, "behaves differently"},
                    Broken{"BROKEN_EVENT", &steps_may_be_split, "next_event changed without an entry"},
                    Broken{"BROKEN_STUCK", &random_actions_break_no_rule, "time after time"},
                    Broken{"BROKEN_THREAD", &random_actions_break_no_rule, "get_extension, which is [any]"},
                    Broken{"BROKEN_STATUS", &random_actions_break_no_rule, "write answered -2"},
                    Broken{"BROKEN_RESET", &reset_equals_fresh, "data[0]"},
                    Broken{"BROKEN_PEEK", &peek_changes_nothing, "received[0]"},
                    Broken{"BROKEN_READ_ONLY", &read_only_registers_keep, "data[0]"},
                    Broken{"BROKEN_FIELDS", &a_saved_device_goes_on_the_same, "behaves differently"},
                    Broken{"BROKEN_FIELDS", &the_schema_is_as_recorded, "ticker.schema says"},
                    Broken{"BROKEN_TAGS", &the_field_list_is_complete, "tag 4 is there twice"},
                    Broken{"BROKEN_LOAD", &load_refuses_bad_values, "was loaded; its maximum is"},
                    Broken{"BROKEN_MANIFEST", &the_manifest_tells_the_truth, "region period differs"},
                    Broken{"BROKEN_CONTROL", &random_actions_break_no_rule, "[control], and was called in dispatch"},
                    Broken{"BROKEN_BUDGET", &random_actions_break_no_rule, "step budget"},
                    Broken{"BROKEN_FOREIGN", &random_actions_break_no_rule, "from another thread"}),
    [](const testing::TestParamInfo<Broken>& of) { return of.param.what + std::to_string(of.index); });

TEST(Bench, SplitsWideAccessesAndDropsNarrowWrites) {
  Bench b("ticker.so");
  b.out(1, 0, 4, 0x11223344);
  EXPECT_EQ(b.in(1, 0, 1), 0x44u); // out of the aligned read around it
  EXPECT_EQ(b.in(1, 2, 2), 0x1122u);
  EXPECT_EQ(b.in(1, 2, 4), 0xffff1122u); // the second half lies outside
  EXPECT_EQ(b.in(0, 2, 2), u64{0x5a00}); // two reads of one byte: DATA, ID
  b.out(1, 0, 2, 0);
  EXPECT_EQ(b.host.dropped_writes, 2u);
  EXPECT_EQ(b.field("period"), 0x11223344u);
}

TEST(Bench, RecordsOutputsAsEventsWithTheirTime) {
  Bench b("ticker.so");
  b.out(1, 0, 4, 1);
  b.out(CTRL, 3);
  b.step(1500);
  b.out(STATUS, 1);
  EXPECT_THAT(b.events(), ElementsAre(Event{1000, EventKind::Irq, 0, 1}, Event{1500, EventKind::Irq, 0, 0}));
}

TEST(Bench, SaysWhatItCouldNotOpen) {
  EXPECT_THROW(Bench("no-such-plugin.so"), LoadError);
  try {
    Bench b("ticker.so", "org.example.other");
    FAIL();
  } catch (const LoadError& error) {
    EXPECT_THAT(error.what(), HasSubstr("no device 'org.example.other'; it has: org.transom.example.ticker"));
  }
}

TEST(Bench, ReportsADeviceThatTheHostLacksAnExtensionFor) {
  Options options;
  options.without = {VDEV_HOST_CLOCK};
  try {
    Bench b("ticker.so", options);
    FAIL();
  } catch (const CreationFailed& failed) {
    EXPECT_EQ(failed.status, VDEV_UNSUPPORTED);
  }
}

TEST(Bench, NoticesACallAfterDestroyAndOneOutsideOfEveryDeviceCall) {
  FakeHost host{Options{}};
  const auto* irq = static_cast<const vdev_host_irq*>(host.abi()->get_extension(host.abi(), VDEV_HOST_IRQ));
  irq->set_level(host.abi(), 0, 1);
  EXPECT_THAT(host.take_violations(), ElementsAre(HasSubstr("irq.set_level was called outside of every device call")));
  host.set_gone();
  irq->set_level(host.abi(), 0, 1);
  EXPECT_THAT(host.take_violations(), ElementsAre(HasSubstr("irq.set_level was called after destroy returned")));
  EXPECT_TRUE(host.events.empty());
}

TEST(Bench, SetFieldGoesThroughTheDevicesOwnLoad) {
  Bench b("ticker.so");
  b.set_field("ctrl", 2);
  b.set_field("status", 1);
  EXPECT_TRUE(b.irq());
  EXPECT_THROW(b.set_field("status", 2), std::out_of_range);
  EXPECT_THROW(b.field("nonsense"), std::out_of_range);
}

TEST(Actions, AreTheSameAfterTextAndBinary) {
  Bench b("ticker.so");
  Random random(7);
  const std::vector<Action> actions = random_actions(b, random, 500);
  EXPECT_EQ(decode(encode(actions)), actions);
  const Trace trace = run(b, actions);
  const Trace parsed = parse_trace("# a comment\n\n" + to_text(trace));
  ASSERT_EQ(parsed.size(), trace.size());
  for (std::size_t i = 0; i < trace.size(); ++i) {
    EXPECT_EQ(parsed[i].action, trace[i].action);
    EXPECT_EQ(parsed[i].result, trace[i].result);
  }
  Bench again("ticker.so");
  EXPECT_EQ(replay(again, parsed), "");
}

TEST(Actions, ReplayNamesTheAnswerThatChanged) {
  Bench b("ticker.so");
  EXPECT_EQ(replay(b, parse_trace("read 0 3 1 = 0x5a\nread 0 3 1 = 0x5b")),
            "action 2: read 0 0x3 1 = 0x5a, recorded = 0x5b\n");
}

TEST(Actions, ABadTraceIsRefusedWithItsLine) {
  const auto error = [](const char* text) -> std::string {
    try {
      parse_trace(text);
    } catch (const TraceError& e) {
      return e.what();
    }
    return "accepted";
  };
  EXPECT_EQ(error("reset\nwrite 0 0 3 1"), "line 2: '3' is not accepted here");
  EXPECT_EQ(error("jump"), "line 1: no action 'jump'");
  EXPECT_EQ(error("read 0 0"), "line 1: 'read' takes 3 numbers");
  EXPECT_EQ(error("step 12x"), "line 1: '12x' is no number");
  EXPECT_EQ(error("read 0 0 1 = 5"), "accepted");
}

TEST(Actions, AFuzzTargetDiesOfABrokenRule) {
  const std::vector<u8> input = encode(std::vector<Action>{{Op::Write, 0, 1, 0, 0x7f}});
  EXPECT_EQ(fuzz_one(plugin_path("ticker.so"), TICKER, input), 0);
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  const auto die = [&] {
    on_violation = nullptr;
    Bench b(std::string(BROKEN_DIR) + "/ticker_BROKEN_STATUS.so");
    run(b, decode(input));
  };
  EXPECT_DEATH(die(), "write answered -2: the device is broken");
}

TEST(Actions, AnyBytesDecode) {
  Random random(3);
  std::vector<u8> bytes(16 * 1000 + 7);
  for (u8& byte : bytes) byte = u8(random());
  const std::vector<Action> actions = decode(bytes);
  EXPECT_EQ(actions.size(), 1000u);
  EXPECT_EQ(decode(encode(actions)), actions);
}

} // namespace
