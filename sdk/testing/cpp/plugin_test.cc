// VDEV_PLUGIN and the tables behind it, through a shipping library (everything.cc).
#include <gmock/gmock.h>

#include "vdev/testing/properties.hpp"

using namespace vdev::testing;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using vdev::u32;
using vdev::u64;
using vdev::u8;

namespace {

constexpr const char* ID = "org.transom.test.everything";
enum : u64 { VALUE, COUNT, START, TIMER };

Options with_disk() {
  Options options;
  options.device = ID;
  options.drives = {blank_disk(4)};
  options.drives[0].data[512] = 0x5a;
  return options;
}

VDEV_PROPERTIES(Everything, "everything.so", ID, .bench = with_disk(), .reset_keeps = {"value"}, .sequences = 6, );
VDEV_PROPERTIES(Least, "everything.so", "org.transom.test.least", .schema = "least.schema");

TEST(Plugin, ExportsEveryChipOfItsListAndTheirManifest) {
  const auto library = Library::open(plugin_path("everything.so"));
  ASSERT_EQ(library->descriptors().size(), 3u);
  EXPECT_EQ(library->factory().descriptor(3), nullptr);
  const vdev::ManifestDevice& device = library->manifest().devices.at(0);
  EXPECT_EQ(device.id, ID);
  EXPECT_EQ(device.bulk_bytes, 528u);
  EXPECT_EQ(device.drive_count, 1u);
  EXPECT_EQ(device.stream_count, 2u);
  EXPECT_EQ(device.pci_functions, 1u);
  ASSERT_EQ(device.config.size(), 3u);
  EXPECT_EQ(device.config[0].maximum, 255u);
}

TEST(Plugin, OffersOnlyTheExtensionsThatAChipHasFunctionsFor) {
  Bench all("everything.so", ID), least("everything.so", "org.transom.test.least");
  for (const char* id : {VDEV_TIMER, VDEV_STREAM, VDEV_BLOCK_DONE, VDEV_INSPECT, VDEV_PCI, VDEV_POSTED, VDEV_PIO_STRING,
                         VDEV_LIFECYCLE, VDEV_IRQ_IN, VDEV_INTACK}) {
    EXPECT_NE(all.extension(id), nullptr) << id;
    EXPECT_EQ(least.extension(id), nullptr) << id;
  }
  EXPECT_NE(least.extension(VDEV_STATE), nullptr);
  EXPECT_EQ(all.extension("vdev.unknown/1"), nullptr);
}

TEST(Plugin, SyncsAfterEveryEntry) {
  Options options = with_disk();
  options.config["count"] = "true";
  Bench b("everything.so", options);
  const u64 before = b.in(COUNT);
  b.out(VALUE, 4);
  b.irq_in(1, true);
  b.pause();
  EXPECT_EQ(b.in(COUNT), before + 4); // the read that gave `before`, and three entries
  b.out(VALUE, 3);
  EXPECT_TRUE(b.irq("irq"));
  EXPECT_EQ(b.host.wires[VDEV_WIRE_A20], 1u);
}

TEST(Plugin, AConfigurationValueReachesTheFreshStateOnly) {
  Options options = with_disk();
  options.config["start"] = "6";
  Bench b("everything.so", options);
  EXPECT_EQ(b.in(VALUE), 6u);
  b.out(VALUE, 8);
  b.restart();
  EXPECT_EQ(b.in(VALUE), 8u);
  b.migrate();
  EXPECT_EQ(b.in(VALUE), 8u);
  b.reset();
  EXPECT_EQ(b.in(VALUE), 9u);
}

TEST(Plugin, AKeyOrValueThatTheManifestLacksIsRefused) {
  Options options = with_disk();
  options.config["start"] = "256";
  EXPECT_THROW(Bench("everything.so", options), LoadError);
  options.config = {{"begin", "1"}};
  EXPECT_THROW(Bench("everything.so", options), LoadError);
}

TEST(Plugin, CreationFailsWithTheReasonInTheLog) {
  const auto failure = [](const Options& options) -> std::string {
    try {
      Bench b("everything.so", options);
      return "created";
    } catch (const CreationFailed& failed) {
      return failed.what();
    }
  };
  Options options = with_disk();
  options.config["refuse"] = "not today";
  EXPECT_THAT(failure(options),
              HasSubstr("init answered -2; error: org.transom.test.everything: not created: not today"));
  options = with_disk();
  options.without = {VDEV_HOST_IRQ};
  EXPECT_THAT(failure(options),
              HasSubstr("init answered -3; error: org.transom.test.everything: not created: vdev.host.irq/1"));
  options.without = {VDEV_HOST_STATE_MEMORY};
  EXPECT_THAT(failure(options), HasSubstr("the host gave no state memory"));
  options.without = {VDEV_HOST_BULK_MEMORY};
  EXPECT_THAT(failure(options), HasSubstr("init answered -4"));
}

TEST(Plugin, WiringThatTheHostLacksDoesNothing) {
  Options options = with_disk();
  options.without = {VDEV_HOST_CLOCK,  VDEV_HOST_DMA,    VDEV_HOST_WIRE, VDEV_HOST_BLOCK,
                     VDEV_HOST_STREAM, VDEV_HOST_CONFIG, VDEV_HOST_LOG};
  Bench b("everything.so", options);
  b.out(START, 1);
  EXPECT_EQ(b.in(TIMER), 2u); // failed
  b.out(TIMER, 1);
  b.writable(1);
  EXPECT_EQ(b.in(VALUE), 0u);
}

TEST(Plugin, ADamagedStateInPlaceIsNotAdopted) {
  Bench b("everything.so", ID);
  Snapshot snapshot = b.save();
  snapshot.at("value").values[0] = 0xee;
  EXPECT_EQ(b.restore(snapshot), VDEV_INVALID); // valid() says no
  b.host.state_memory()[0] = 0xee;
  EXPECT_THROW(b.restart(), CreationFailed);
}

TEST(Plugin, NestedFieldsHaveTheirOwnTagsAndNames) {
  Bench b("everything.so", ID);
  Snapshot snapshot = b.save();
  EXPECT_EQ(snapshot.at("port[0].latch").tag, 0x60001u);
  EXPECT_EQ(snapshot.at("port[1].bytes.head").tag, 0x06010302u);
  EXPECT_EQ(snapshot.at("port[1].bytes.head").maximum, 1u);
  EXPECT_EQ(snapshot.at("mode").maximum, 2u);
  EXPECT_EQ(snapshot.at("paused").maximum, 1u);
  EXPECT_THAT(snapshot.at("grid").values, ElementsAre(1, 2, 3, 4));
  b.set_field("port[1].latch", 0x1234);
  EXPECT_EQ(b.field("port[1].latch"), 0x1234u);
  EXPECT_EQ(b.field("port[0].latch"), 7u);
}

TEST(Plugin, AFieldThatTheSnapshotLacksKeepsItsResetValueAndOldVersionsAreMigrated) {
  Bench b("everything.so", ID);
  Snapshot snapshot = b.save();
  std::erase_if(snapshot.fields, [](const SavedField& f) { return f.name == "port[0].latch"; });
  snapshot.at("value").values[0] = 0x44;
  snapshot.version = 1;
  b.set_field("port[0].latch", 1);
  EXPECT_EQ(b.restore(snapshot), VDEV_OK);
  EXPECT_EQ(b.field("port[0].latch"), 7u);
  EXPECT_EQ(b.field("inputs"), 0x111u);
  EXPECT_EQ(b.in(VALUE), 0x44u);
  snapshot.version = 3;
  EXPECT_EQ(b.restore(snapshot), VDEV_UNSUPPORTED);
}

TEST(Plugin, TimersFireAtTheFirstNanosecondOfTheirTick) {
  Bench b("everything.so", ID);
  b.out(TIMER, 105); // 88 us, exactly
  b.step(87'999);
  EXPECT_FALSE(b.irq() && b.in(VALUE) == 1);
  EXPECT_EQ(b.next_event(), 88'000u);
  b.step(1);
  EXPECT_EQ(b.in(VALUE), 1u);
}

TEST(Plugin, BlockRequestsFillBulkMemoryAndReportTheirEnd) {
  Bench b("everything.so", with_disk());
  b.out(START, 1);
  EXPECT_EQ(b.in(TIMER), 1u); // reading
  EXPECT_EQ(b.complete(), 1u);
  EXPECT_EQ(b.in(TIMER), 0u);
  EXPECT_EQ(b.in(START), 0x5au);
  b.host.block_fails_in = 1;
  b.out(START, 1);
  b.complete();
  EXPECT_EQ(b.in(TIMER), 2u);
  b.out(START, 4); // beyond the end
  b.complete();
  EXPECT_EQ(b.in(TIMER), 2u);
  b.set_medium(0, false);
  EXPECT_EQ(b.acknowledge(), 0x30);
  EXPECT_EQ(b.acknowledge(), 0x31);
}

TEST(Plugin, StreamsInputsConfigSpaceRunsAndLifecycleArrive) {
  Bench b("everything.so", ID);
  EXPECT_EQ(b.send("abc", 1), 2u);
  EXPECT_EQ(b.field("port[1].bytes.data", 1), u64{'b'});
  b.writable(1);
  EXPECT_EQ(b.take_sent(1), "w");
  b.irq_in(2, true);
  EXPECT_EQ(b.field("inputs"), 4u);
  b.cfg_write(0, 0x41, 1, 0x77);
  EXPECT_EQ(b.cfg_read(0, 0x41, 1), 0x77u);
  EXPECT_THAT(b.in_run(0, VALUE, 1, 3), ElementsAre(0xaa, 0xaa, 0xaa));
  b.out(VALUE, 4);
  EXPECT_EQ(b.in_run(0, TIMER, 1, 2), (std::vector<u8>{0, 0})); // no fast way: read() in a loop
  const u8 words[] = {1, 2, 3, 4, 5, 6, 7, 8};
  b.out_run(1, 4, 4, words);
  EXPECT_EQ(b.in(1, 4, 4), 0x08070605u);
  b.pause();
  EXPECT_EQ(b.field("paused"), 1u);
  b.resume();
  EXPECT_EQ(b.field("paused"), 0u);
  EXPECT_THAT(b.host.log, Contains("info: made at 5"));
}

TEST(Plugin, TheBenchKeepsThePciHeader) {
  Bench b("everything.so", ID);
  EXPECT_EQ(b.cfg_read(0, 0, 4), 0x56781234u);
  EXPECT_EQ(b.cfg_read(0, 8, 4), 0xff000003u);
  EXPECT_EQ(b.cfg_read(0, 6, 2), 0x0280u);
  b.cfg_write(0, 0x18, 4, ~0u);
  EXPECT_EQ(b.cfg_read(0, 0x18, 4), 0xfffffff0u);
  b.cfg_write(0, 0x18, 4, 0xfebf0010);
  EXPECT_EQ(b.bar(0, 2), 0xfebf0010u);
  EXPECT_FALSE(b.host.bus_master);
  b.cfg_write(0, 4, 2, 0xffff);
  EXPECT_EQ(b.cfg_read(0, 4, 2), 0x0547u);
  EXPECT_TRUE(b.host.bus_master);
}

TEST(Plugin, APostedWriteThatMovesAWireIsFound) {
  const Subject careless = Subject::open(plugin_path("everything.so"), "org.transom.test.careless", {});
  EXPECT_THAT(random_actions_break_no_rule(careless), HasSubstr("a posted write changed an output"));
}

TEST(Plugin, AMemberThatTheListOfFieldsForgetsIsFound) {
  const Subject careless = Subject::open(plugin_path("everything.so"), "org.transom.test.careless", {});
  EXPECT_THAT(the_field_list_is_complete(careless), HasSubstr("byte 2 of State counts in operator=="));
}

} // namespace
