// list, info, placement, kill.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "domain_run.hpp"

namespace transom::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::MatchesRegex;

class Commands : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(run_.shows("ready")); }
  Folder folder_;
  Transom run_{folder_,
               {"run", "--set", "boot.firmware=" + guest("echo"), "--memory", "16M", "--cpu", "soft", "--set",
                "name=here", "--set", "placement.uart0=dom0"}};
};

TEST_F(Commands, ListShowsStateCpuAndUptime) {
  Finished f = run_transom(folder_, {"list"});
  EXPECT_EQ(f.status, 0);
  EXPECT_THAT(f.out, MatchesRegex("NAME +STATE +CPU +UPTIME\nhere +running +soft:jit +[0-9.]+ s\n"));
  f = run_transom(folder_, {"list", "--json"});
  EXPECT_THAT(f.out, MatchesRegex(
                         R"(\[\{"name": "here", "state": "running", "cpu": "soft:jit", "uptimeSeconds": [0-9.]+\}\]
)"));
}

TEST_F(Commands, InfoCountsExitsByCauseAndIoreqsByDevice) {
  const Finished f = run_transom(folder_, {"info", "here", "--json"});
  EXPECT_EQ(f.status, 0);
  for (const char* part :
       {"\"memory\": \"16777216\"", "\"role\": \"transom-dom0\"", "\"exits\": [", "\"name\": \"pio_read\""})
    EXPECT_THAT(f.out, HasSubstr(part));
  const size_t uart = f.out.find("\"name\": \"uart0\"");
  ASSERT_NE(uart, std::string::npos);
  const size_t counter = f.out.find("\"ioreqs\"", uart);
  const std::string before = "\"value\": \"";
  const size_t value = f.out.find(before, counter);
  ASSERT_NE(value, std::string::npos);
  EXPECT_GT(std::stoul(f.out.substr(value + before.size())), 6u); // it printed "ready"
  const Finished text = run_transom(folder_, {"info", "here"});
  EXPECT_THAT(text.out, AllOf(HasSubstr("here: running, 1 vCPU (soft:jit"), HasSubstr("uart0 in dom0")));
}

TEST_F(Commands, PlacementNamesEveryDevice) {
  const Finished f = run_transom(folder_, {"placement", "here"});
  EXPECT_EQ(f.status, 0);
  for (const char* device :
       {"pic_pit      hypervisor", "rtc          dom0", "piix         dom0", "ide          dom0", "uart0        dom0"})
    EXPECT_THAT(f.out, HasSubstr(device));
  EXPECT_THAT(run_transom(folder_, {"placement", "here", "--json"}).out,
              HasSubstr(R"({"name": "pic_pit", "place": "hypervisor", "id": "org.transom.pic-pit", "plugin": ")"));
}

TEST_F(Commands, ADomainThatDoesNotRunIsOneLine) {
  for (const char* command : {"info", "placement", "kill"}) {
    const Finished f = run_transom(folder_, {command, "there"});
    EXPECT_EQ(f.status, 1);
    EXPECT_EQ(f.err, "transom: no domain named there is running; see: transom list\n");
  }
}

TEST(CommandsWithoutDomain, AnEmptyListIsNoFailure) {
  const Folder folder;
  EXPECT_EQ(run_transom(folder, {"list", "--json"}).out, "[]\n");
  EXPECT_EQ(run_transom(folder, {"list"}).status, 0);
}

TEST(CommandsWithoutDomain, TheRunsLastInfoIsWrittenWhole) {
  const Folder folder;
  const std::string file = (folder / "info.json").string();
  EXPECT_EQ(run_transom(folder, {"run", "--set", "boot.firmware=" + guest("off"), "--memory", "16M", "--cpu", "soft",
                                 "--info-at-end", file})
                .status,
            0);
  EXPECT_THAT(read_file(file), AllOf(HasSubstr("\"state\": \"stopped\""), HasSubstr("\"ioreqs\"")));
}

} // namespace
} // namespace transom::test
