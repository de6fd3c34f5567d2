// Dialogues with the stub, as gdb would hold them.
#include "hypervisor/gdb/stub.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "hypervisor/gdb/test_target.hpp"

namespace transom::gdb {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

const RegisterSet SET(Architecture::x86_64);

struct Dialogue {
  explicit Dialogue(u32 vcpus = 2, Architecture architecture = Architecture::x86_64)
      : target(vcpus), stub(target, architecture) {}

  // Sends a packet; the data of the answer, or "(nothing)".
  std::string say(std::string_view data) {
    stub.receive(packet(data));
    std::string answer = stub.take_output();
    if (answer.starts_with('+')) answer.erase(0, 1);
    return unframed(answer);
  }
  static std::string unframed(const std::string& bytes) {
    PacketReader reader;
    for (const char c : bytes)
      if (reader.put(static_cast<u8>(c)) == PacketReader::Event::packet) return std::string(reader.data());
    return "(nothing)";
  }
  // A vCPU stops by itself.
  std::string stop(u32 vcpu, u64 rip) {
    target.cpus[vcpu].registers.rip = rip;
    target.stops.push_back(vcpu);
    stub.stopped();
    return unframed(stub.take_output());
  }

  TestTarget target;
  Stub stub;
};

constexpr u32 RIP = 16, EFLAGS = 17, CS = 18, ST0 = 24, FTAG = 34, XMM0 = 40, MXCSR = 56, GS_BASE = 58, CR0 = 60;

std::string number(u32 n) { return fmt::format("{:x}", n); }

TEST(Stub, HoldsTheDomainFromTheFirstMoment) {
  Dialogue d;
  EXPECT_TRUE(d.target.standing);
  EXPECT_EQ(d.say("?"), "T05thread:1;");
  EXPECT_EQ(d.target.resumes, 0u);
}

TEST(Stub, SaysWhatItCanAndNothingToWhatItCannot) {
  Dialogue d;
  EXPECT_THAT(d.say("qSupported:swbreak+;xmlRegisters=i386"), HasSubstr("PacketSize=4000;qXfer:features:read+"));
  EXPECT_EQ(d.say("vMustReplyEmpty"), "");
  EXPECT_EQ(d.say("Z2,10000,4"), ""); // no watchpoints: gdb then looks after each step
  EXPECT_EQ(d.say("!"), "");
  EXPECT_EQ(d.say("vCont?"), "vCont;c;C;s;S");
  EXPECT_EQ(d.say("qAttached"), "1");
}

TEST(Stub, AcknowledgesUntilItIsToldNotTo) {
  Dialogue d;
  d.stub.receive("$?#3f");
  EXPECT_EQ(d.stub.take_output(), "+$T05thread:1;#d7");
  d.stub.receive("-"); // once more
  EXPECT_EQ(d.stub.take_output(), "$T05thread:1;#d7");
  d.stub.receive("$?#00");
  EXPECT_EQ(d.stub.take_output(), "-");
  EXPECT_EQ(d.say("QStartNoAckMode"), "OK");
  d.stub.receive("$?#3f");
  EXPECT_EQ(d.stub.take_output(), "$T05thread:1;#d7");
  EXPECT_FALSE(d.stub.ended());
}

TEST(Stub, HangsUpOnWhoDoesNotKeepToTheLimit) {
  Dialogue d;
  d.stub.receive("$" + std::string(MAX_PACKET + 1, 'm'));
  EXPECT_TRUE(d.stub.ended());
  EXPECT_EQ(d.target.resumes, 1u); // and the guest runs on
}

TEST(Stub, HandsItsDescriptionOutInPieces) {
  Dialogue d;
  std::string whole;
  for (bool more = true; more;) {
    const std::string part = d.say("qXfer:features:read:target.xml:" + number(static_cast<u32>(whole.size())) + ",123");
    ASSERT_TRUE(part[0] == 'm' || part[0] == 'l');
    more = part[0] == 'm';
    whole += part.substr(1);
  }
  EXPECT_EQ(whole, SET.description());
  EXPECT_THAT(whole, HasSubstr("<architecture>i386:x86-64</architecture>"));
  EXPECT_EQ(d.say("qXfer:features:read:other.xml:0,10"), "E02");
  EXPECT_EQ(d.say("qXfer:features:read:target.xml:zz,10"), "E16");
}

TEST(Registers, AreReadTogetherAndOneByOne) {
  Dialogue d;
  d.target.cpus[0].registers.gpr[3] = 0x1122'3344'5566'7788; // rbx, the second of gdb's
  const std::string all = d.say("g");
  EXPECT_THAT(all, StartsWith("00000000000011118877665544332211"));
  EXPECT_EQ(d.say("p1"), "8877665544332211");
  EXPECT_EQ(d.say("p" + number(CS)), "10000000");
  EXPECT_EQ(d.say("p" + number(SET.count())), "E16");
  size_t bytes = 0;
  for (u32 n = 0; n < SET.count(); ++n) bytes += SET.bytes(n);
  EXPECT_EQ(all.size(), 2 * bytes);
}

TEST(Registers, AreThoseOfTheChosenThread) {
  Dialogue d;
  EXPECT_EQ(d.say("Hg2"), "OK");
  EXPECT_EQ(d.say("p" + number(RIP)), "0001010000000000");
  EXPECT_EQ(d.say("P" + number(RIP) + "=4523010000000000"), "OK");
  EXPECT_EQ(d.target.cpus[1].registers.rip, 0x1'2345u);
  EXPECT_EQ(d.target.cpus[0].registers.rip, 0x1'0000u);
  EXPECT_EQ(d.say("Hg3"), "E03");
}

TEST(Registers, WrittenTogetherAreTheOnesThatWereRead) {
  Dialogue d;
  std::string all = d.say("g");
  EXPECT_EQ(d.say("G" + all), "OK");
  EXPECT_EQ(d.target.register_writes, 0u); // nothing changed: a halted processor stays so
  all.replace(0, 16, "efcdab8967452301");
  EXPECT_EQ(d.say("G" + all), "OK");
  EXPECT_EQ(d.target.cpus[0].registers.gpr[0], 0x0123'4567'89ab'cdefu);
  EXPECT_EQ(d.say("G" + all.substr(0, 15)), "E16");
}

TEST(Registers, TakeNoValueThatNoProcessorHas) {
  Dialogue d;
  EXPECT_EQ(d.say("P" + number(RIP) + "=0000000000008000"), "E01");     // not canonical
  EXPECT_EQ(d.say("P" + number(EFLAGS) + "=02000200"), "E01");          // VM
  EXPECT_EQ(d.say("P" + number(CS) + "=18000000"), "E01");              // a selector without its descriptor
  EXPECT_EQ(d.say("P" + number(MXCSR) + "=00000100"), "E01");           // reserved
  EXPECT_EQ(d.say("P" + number(CR0) + "=1000000000000000"), "E01");     // paging off
  EXPECT_EQ(d.say("P" + number(GS_BASE) + "=0000000000008000"), "E01"); // not canonical
  EXPECT_EQ(d.say("P" + number(RIP) + "=00"), "E16");                   // too short
  EXPECT_EQ(d.target.register_writes, 0u);
  EXPECT_EQ(d.say("P" + number(CR0) + "=1900018000000000"), "OK"); // TS and WP
  EXPECT_EQ(d.target.cpus[0].registers.cr0, 0x8001'0019u);
}

TEST(Registers, OfRealModeTakeASelectorWithItsBase) {
  Dialogue d;
  d.target.cpus[0].registers.cr0 = 0x10;
  d.target.cpus[0].registers.efer = 0;
  EXPECT_EQ(d.say("P" + number(CS) + "=00f00000"), "OK");
  EXPECT_EQ(d.target.cpus[0].registers.cs.base, 0xf'0000u);
}

TEST(Registers, Of32BitProcessorsAreNarrowAndInTheirOwnOrder) {
  Dialogue d(1, Architecture::i386);
  EXPECT_THAT(d.say("qXfer:features:read:target.xml:0,2000"), HasSubstr("<architecture>i386</architecture>"));
  d.target.cpus[0].registers.gpr[3] = 0x1122'3344; // ebx, the fourth there
  EXPECT_EQ(d.say("p3"), "44332211");
  EXPECT_EQ(d.say("p8"), "00000100"); // eip
  EXPECT_EQ(d.say("P8=78563412"), "OK");
  EXPECT_EQ(d.target.cpus[0].registers.rip, 0x1234'5678u);
}

TEST(Registers, OfTheFpuAreThoseOfItsImage) {
  Dialogue d;
  u8* const fx = d.target.cpus[0].fx;
  fx[3] = 7 << 3; // TOP = 7: ST(0) is register 7
  fx[4] = 0x80;   // the only one that is not empty
  const u8 one[10] = {0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f};
  std::memcpy(fx + 32, one, sizeof one);
  EXPECT_EQ(d.say("p" + number(ST0)), "0000000000000080ff3f");
  EXPECT_EQ(d.say("p" + number(FTAG)), "ff3f0000");
  EXPECT_EQ(d.say("P" + number(FTAG) + "=ffff0000"), "OK");
  EXPECT_EQ(fx[4], 0);
  EXPECT_EQ(d.say("P" + number(XMM0 + 1) + "=000102030405060708090a0b0c0d0e0f"), "OK");
  EXPECT_EQ(fx[160 + 16 + 5], 5);
  EXPECT_EQ(d.target.register_writes, 0u);
}

TEST(Memory, IsReadUpToTheHole) {
  Dialogue d;
  d.target.ram[0x7ffe] = 0xab;
  d.target.ram[0x7fff] = 0xcd;
  EXPECT_EQ(d.say("m17ffe,2"), "abcd");
  EXPECT_EQ(d.say("m17ffe,40"), "abcd");
  EXPECT_EQ(d.say("m18000,1"), "E0e");
  EXPECT_EQ(d.say("m0,1"), "E0e"); // mapped, and no memory there
  EXPECT_EQ(d.say("mfffffffffffffff0,100"), "E0e");
  EXPECT_EQ(d.say("m17ffe"), "E16");
  EXPECT_EQ(d.say("m10000,ffffffffffffffff").size(), MAX_PACKET);
}

TEST(Memory, IsWrittenInHexAndInBinary) {
  Dialogue d;
  EXPECT_EQ(d.say("M10ffe,4:01020304"), "OK"); // over a page's end
  EXPECT_EQ(d.target.ram[0x0fff], 2);
  EXPECT_EQ(d.target.ram[0x1001], 4);
  EXPECT_EQ(d.say(std::string("X10000,4:}#$*")), "OK");
  EXPECT_EQ(std::string(d.target.ram.begin(), d.target.ram.begin() + 4), "}#$*");
  EXPECT_EQ(d.say("X10000,0:"), "OK"); // how gdb asks whether there is X
  EXPECT_EQ(d.say("M10000,2:01"), "E16");
  EXPECT_EQ(d.say("M18000,1:01"), "E0e");
  EXPECT_EQ(d.say("M1f000,1:01"), "E0e"); // ROM
}

TEST(Memory, IsPhysicalOnRequest) {
  Dialogue d;
  EXPECT_EQ(d.say("m18000,1"), "E0e");
  EXPECT_EQ(d.say("Qqemu.PhyMemMode:1"), "OK");
  EXPECT_EQ(d.say("qqemu.PhyMemMode"), "1");
  EXPECT_EQ(d.say("m18000,1"), "00");
}

TEST(Breakpoints, AreRefusedBeyondWhatTheProcessorHas) {
  Dialogue d;
  d.target.limit = 2;
  EXPECT_EQ(d.say("Z0,10010,1"), "OK");
  EXPECT_EQ(d.say("Z1,10020,1"), "OK");
  EXPECT_EQ(d.say("Z0,10030,1"), "E1c");
  EXPECT_EQ(d.say("Z0,10020,1"), "OK") << "there already";
  EXPECT_EQ(d.say("z0,10010,1"), "OK");
  EXPECT_EQ(d.say("Z0,10030,1"), "OK");
}

TEST(Breakpoints, AreSetWhenTheDomainGoesOn) {
  Dialogue d;
  d.say("qSupported:swbreak+");
  EXPECT_EQ(d.say("Z0,10010,1"), "OK");
  EXPECT_EQ(d.say("Z1,10020,1"), "OK");
  EXPECT_EQ(d.say("Z0,10030,1"), "OK");
  EXPECT_EQ(d.say("z0,10030,1"), "OK");
  EXPECT_EQ(d.say("z0,10020,1"), "OK"); // is no software breakpoint
  EXPECT_EQ(d.say("Z0,xyz,1"), "E16");
  EXPECT_EQ(d.say("vCont;c"), "(nothing)");
  EXPECT_THAT(d.target.breakpoints, ElementsAre(0x1'0010u, 0x1'0020u));
  EXPECT_EQ(d.stop(1, 0x1'0020), "T05hwbreak:;thread:2;");
  EXPECT_TRUE(d.target.standing);
  EXPECT_EQ(d.say("qC"), "QC2");
  d.say("c");
  EXPECT_EQ(d.stop(0, 0x1'0010), "T05swbreak:;thread:1;");
}

TEST(Breakpoints, BehindASegmentBaseAreTrapsWithoutAName) {
  Dialogue d;
  d.say("qSupported:swbreak+");
  d.target.cpus[1].registers.efer = 0;
  d.target.cpus[1].registers.cs = {0x800, 0x93, 0xffff, 0x8000};
  d.say("Z0,8000,1");
  d.say("vCont;c");
  EXPECT_EQ(d.stop(1, 0), "T05thread:2;");
}

TEST(Breakpoints, HaveALimit) {
  Dialogue d;
  for (size_t n = 0; n < Stub::MAX_BREAKPOINTS; ++n) ASSERT_EQ(d.say("Z0," + number(static_cast<u32>(n)) + ",1"), "OK");
  EXPECT_EQ(d.say("Z0,10000,1"), "E1c");
  EXPECT_EQ(d.say("Z0,1,1"), "OK"); // it is there already
}

TEST(Breakpoints, ThatTwoProcessorsHitAtOnceAreToldOneAfterTheOther) {
  Dialogue d;
  d.say("Z0,10010,1");
  d.say("vCont;c");
  d.target.cpus[1].registers.rip = 0x1'0010;
  d.target.stops.push_back(0);
  EXPECT_EQ(d.stop(1, 0x1'0010), "T05thread:1;");
  EXPECT_EQ(d.say("vCont;s:1"), "(nothing)"); // gdb steps over, the other one stands
  EXPECT_THAT(d.target.actions, ElementsAre(Action::step, Action::stand));
  EXPECT_EQ(d.stop(0, 0x1'0011), "T05thread:1;");
  const u32 before = d.target.resumes;
  EXPECT_EQ(d.say("vCont;c"), "T05thread:2;");
  EXPECT_EQ(d.target.resumes, before);
  EXPECT_EQ(d.say("vCont;c"), "(nothing)");
}

TEST(Breakpoints, ThatWereRemovedMeanwhileAreNotTold) {
  Dialogue d;
  d.say("Z0,10010,1");
  d.say("vCont;c");
  d.target.stops.push_back(0);
  d.stop(1, 0x1'0010);
  d.say("z0,10010,1");
  EXPECT_EQ(d.say("vCont;c"), "(nothing)");
}

TEST(GoingOn, ChoosesForEachThreadTheFirstActionThatNamesIt) {
  Dialogue d(3);
  EXPECT_EQ(d.say("vCont;s:2;c"), "(nothing)");
  EXPECT_THAT(d.target.actions, ElementsAre(Action::go_on, Action::step, Action::go_on));
  d.stop(1, 0);
  d.say("vCont;C05:1;S05:3");
  EXPECT_THAT(d.target.actions, ElementsAre(Action::go_on, Action::stand, Action::step));
  d.stop(0, 0);
  EXPECT_EQ(d.say("vCont;c:9"), "E03");
  EXPECT_EQ(d.say("vCont;t"), "E16");
  EXPECT_EQ(d.say("vCont;"), "E16");
  EXPECT_TRUE(d.target.standing);
}

TEST(GoingOn, ByTheOldPacketsStepsOneAndContinuesAll) {
  Dialogue d;
  d.say("s");
  EXPECT_THAT(d.target.actions, ElementsAre(Action::step, Action::stand));
  d.stop(0, 0x1'0001);
  d.say("Hc2");
  d.say("s");
  EXPECT_THAT(d.target.actions, ElementsAre(Action::stand, Action::step));
  d.stop(1, 0);
  d.say("Hc0");
  d.say("C05;12345");
  EXPECT_THAT(d.target.actions, ElementsAre(Action::go_on, Action::go_on));
  EXPECT_EQ(d.target.cpus[1].registers.rip, 0x1'2345u); // the thread of the last stop
}

TEST(CtrlC, StopsARunningDomainAndSaysNothingToAStandingOne) {
  Dialogue d;
  d.stub.receive("\x03");
  EXPECT_EQ(d.stub.take_output(), "");
  d.say("vCont;c");
  EXPECT_EQ(d.say("g"), "(nothing)"); // there is nothing else to say while it runs
  d.stub.receive("\x03");
  EXPECT_EQ(d.stub.take_output(), "$T02thread:1;#d4");
  EXPECT_TRUE(d.target.standing);
}

TEST(CtrlC, ThatCrossesABreakpointTellsTheBreakpoint) {
  Dialogue d;
  d.say("Z0,10010,1");
  d.say("vCont;c");
  d.target.cpus[0].registers.rip = 0x1'0010;
  d.target.stops.push_back(0);
  d.stub.receive("\x03");
  EXPECT_EQ(Dialogue::unframed(d.stub.take_output()), "T05thread:1;");
  d.stub.stopped(); // the news of it, late
  EXPECT_EQ(d.stub.take_output(), "");
}

TEST(Threads, AreTheVcpus) {
  Dialogue d(3);
  EXPECT_EQ(d.say("qfThreadInfo"), "m1,2,3");
  EXPECT_EQ(d.say("qsThreadInfo"), "l");
  EXPECT_EQ(d.say("T3"), "OK");
  EXPECT_EQ(d.say("T4"), "E03");
  EXPECT_EQ(unhex(d.say("qThreadExtraInfo,2")), "vCPU 1: started");
}

TEST(Monitor, ShowsWhatGdbHasNoNameFor) {
  Dialogue d;
  EXPECT_THAT(*unhex(d.say("qRcmd," + hex(std::string_view("info registers")))), HasSubstr("cs   0010 base"));
  EXPECT_THAT(*unhex(d.say("qRcmd," + hex(std::string_view("translate 0x18000")))), HasSubstr("not mapped"));
  EXPECT_THAT(*unhex(d.say("qRcmd," + hex(std::string_view("what?")))), HasSubstr("translate ADDRESS"));
  EXPECT_EQ(d.say("qRcmd,0"), "E16");
}

TEST(TheEnd, ByDetachingLetsEverythingRunWithoutBreakpoints) {
  Dialogue d;
  d.say("Z0,10010,1");
  EXPECT_EQ(d.say("D"), "OK");
  EXPECT_TRUE(d.stub.ended());
  EXPECT_THAT(d.target.actions, ElementsAre(Action::go_on, Action::go_on));
  EXPECT_TRUE(d.target.breakpoints.empty());
  EXPECT_EQ(d.target.resumes, 1u);
}

TEST(TheEnd, OfTheConnectionWhileItRunsTakesTheBreakpointsAway) {
  Dialogue d;
  d.say("Z0,10010,1");
  d.say("vCont;s:1");
  d.stub.detach();
  EXPECT_TRUE(d.target.breakpoints.empty());
  EXPECT_THAT(d.target.actions, ElementsAre(Action::go_on, Action::go_on));
  EXPECT_FALSE(d.target.standing);
}

TEST(TheEnd, ByKillingEndsTheDomain) {
  Dialogue d;
  EXPECT_EQ(d.say("k"), "(nothing)");
  EXPECT_TRUE(d.target.killed);
  EXPECT_EQ(d.target.resumes, 0u);
  Dialogue other;
  EXPECT_EQ(other.say("vKill;1"), "OK");
  EXPECT_TRUE(other.target.killed);
}

TEST(TheEnd, OfTheDomainIsToldToWhoWaitsForIt) {
  Dialogue d;
  d.say("vCont;c");
  d.stub.domain_ended();
  EXPECT_EQ(Dialogue::unframed(d.stub.take_output()), "W00");
  EXPECT_TRUE(d.stub.ended());
}

} // namespace
} // namespace transom::gdb
