// Running and stopping on KVM: interrupts, HLT, kicks, registers, a debugger.
#include <atomic>

#include "hypervisor/vcpu/kvm/test_guest.hpp"

namespace transom {
namespace {

class KvmRun : public KvmGuest {
 protected:
  // Interrupt `vector` of a real-mode guest: counts in BL, and ends the run with HLT if `halts`.
  void handler(u32 vector, bool halts = false) {
    put<u32>(4 * vector, 0x3000);
    if (halts)
      code({0xfe, 0xc3, 0xf4}, 0x3000); // inc bl; hlt
    else
      code({0xfe, 0xc3, 0xcf}, 0x3000); // inc bl; iret
  }
};

TEST_F(KvmRun, AnInterruptWakesAHaltedProcessor) {
  handler(0x40);
  code({0xfb, 0xf4, 0xfe, 0xc1, 0xf4}); // sti; hlt; inc cl; hlt
  start(registers_16());
  EXPECT_EQ(run(), RunResult::halted);
  EXPECT_EQ(gpr(RBX), 0u);
  EXPECT_EQ(gpr(RCX), 0u);
  EXPECT_EQ(run(), RunResult::halted) << "nothing is pending";
  EXPECT_EQ(gpr(RCX), 0u);
  platform_.interrupt = 0x40;
  EXPECT_EQ(run(), RunResult::halted);
  EXPECT_EQ(gpr(RBX), 1u);
  EXPECT_EQ(gpr(RCX), 1u) << "it went on behind HLT";
  EXPECT_EQ(vcpu_->counters().interrupts, 1u);
}

TEST_F(KvmRun, HaltedWithInterruptsOffItStaysSo) {
  handler(0x40);
  code({0xfa, 0xf4, 0xfe, 0xc1, 0xf4}); // cli; hlt; inc cl; hlt
  start(registers_16());
  platform_.interrupt = 0x40;
  EXPECT_EQ(run(), RunResult::halted);
  EXPECT_EQ(run(), RunResult::halted);
  EXPECT_EQ(gpr(RBX), 0u);
  EXPECT_EQ(gpr(RCX), 0u);
  EXPECT_EQ(platform_.interrupt, 0x40) << "not acknowledged";
}

TEST_F(KvmRun, AnInterruptWaitsForStiAndForTheInstructionBehindIt) {
  handler(0x40, true);
  code({0xb1, 1, 0xfb, 0xb1, 2, 0xb1, 3, 0xf4}); // mov cl,1; sti; mov cl,2; mov cl,3; hlt
  start(registers_16());
  platform_.interrupt = 0x40;
  EXPECT_EQ(run(), RunResult::halted);
  EXPECT_EQ(gpr(RBX), 1u);
  EXPECT_GE(gpr(RCX), 2u) << "STI holds it back for one instruction; some nested KVM say a little later that it ended";
}

TEST_F(KvmRun, AnInterruptEndsAnEndlessLoop) {
  handler(0x40, true);
  code({0xfb, 0xe6, 0x80, 0xeb, 0xfc}); // sti; out 80h, al; jmp $-2
  platform_.on_out = [&](u16, u32, u32) {
    if (platform_.ports.size() == 5) platform_.interrupt = 0x40;
  };
  start(registers_16());
  EXPECT_EQ(run(), RunResult::halted);
  EXPECT_EQ(gpr(RBX), 1u);
  EXPECT_EQ(platform_.ports.size(), 5u) << "before the next instruction but one";
}

TEST_F(KvmRun, AnNmiComesWithInterruptsOff) {
  handler(2);
  code({0xfa, 0xf4, 0xfe, 0xc1, 0xf4}); // cli; hlt; inc cl; hlt
  start(registers_16());
  EXPECT_EQ(run(), RunResult::halted);
  platform_.nmi = true;
  EXPECT_EQ(run(), RunResult::halted);
  EXPECT_EQ(gpr(RBX), 1u);
  EXPECT_EQ(gpr(RCX), 1u);
}

TEST_F(KvmRun, TheTaskPriorityIsThePlatforms) {
  code({0x44, 0x0f, 0x20, 0xc3, // mov rbx, cr8
        0xb8, 5, 0, 0, 0,       // mov eax, 5
        0x44, 0x0f, 0x22, 0xc0, // mov cr8, rax
        0xf4});
  platform_.tpr = 9;
  start(registers_64());
  EXPECT_EQ(run(), RunResult::halted);
  EXPECT_EQ(gpr(RBX), 9u);
  EXPECT_EQ(platform_.tpr, 5);
}

TEST_F(KvmRun, APriorityThatFallsLetsTheInterruptThrough) {
  put<u64>(0x6000 + 16 * 0x40, 0x0000'8e00'0008'3000); // gate of vector 40h
  put<u64>(0x6008 + 16 * 0x40, 0);
  put<u64>(0x5008, 0x00af'9b00'0000'ffff); // GDT: 64-bit code
  code({0xff, 0xc3, 0xf4}, 0x3000);        // inc ebx; hlt
  code({0xfb, 0x90, 0x90,                  // sti; nop; nop
        0x44, 0x0f, 0x22, 0xc0,            // mov cr8, rax
        0x90, 0xb1, 1, 0xf4});             // nop; mov cl, 1; hlt
  VcpuRegisters r = registers_64();
  r.idtr = {0x6000, 0xfff};
  r.gdtr = {0x5000, 0xf};
  r.gpr[RAX] = 2;
  start(r);
  platform_.tpr = 4;
  platform_.interrupt = 0x40; // class 4: held back at 4
  EXPECT_EQ(run(), RunResult::halted);
  EXPECT_EQ(gpr(RBX), 1u);
  EXPECT_EQ(platform_.tpr, 2);
}

// ---------------------------------------------------------------------------------------------------- leaving

TEST_F(KvmRun, EveryKickIsHeard) {
  code({0xeb, 0xfe}); // jmp $
  start(registers_32());
  std::atomic<int> rounds{0};
  std::atomic<bool> over{false};
  std::thread kicker([&] {
    for (int n = 0; n < 300; ++n) {
      flag_.fetch_or(Vcpu::LEAVE);
      vcpu_->kick();
      while (rounds.load() <= n && !over.load()) std::this_thread::yield();
    }
  });
  for (int n = 0; n < 300; ++n) {
    EXPECT_EQ(run(), RunResult::exited);
    ++rounds;
    if (HasFailure()) break;
  }
  over = true;
  kicker.join();
}

TEST_F(KvmRun, ALookIsNoReasonToLeave) {
  code({0xe6, 0x80, 0xf4}); // out 80h, al; hlt
  platform_.on_out = [&](u16, u32, u32) { flag_.fetch_or(Vcpu::LOOK); };
  start(registers_32());
  EXPECT_EQ(run(), RunResult::halted);
  EXPECT_EQ(flag_, 0u);
}

TEST_F(KvmRun, AnAccessIsCompleteWhenTheRunEnds) {
  platform_.on_in = [&](u16, u32) {
    flag_.fetch_or(Vcpu::LEAVE);
    return 0x42u;
  };
  code({0xe4, 0x60, 0xf4}); // in al, 60h; hlt
  start(registers_32());
  EXPECT_EQ(run(), RunResult::exited);
  EXPECT_EQ(vcpu_->registers().rip, CODE + 2);
  EXPECT_EQ(gpr(RAX), 0x42u);
  EXPECT_EQ(run(), RunResult::halted);
  EXPECT_EQ(platform_.ports.size(), 1u) << "read once";
}

TEST_F(KvmRun, AnInstructionThatItsKvmDoesNotComeBackFromCanBeLeft) {
  code({0x0f, 0x01, 0xc1, 0xf4}); // vmcall; hlt
  start(registers_32());
  std::atomic<bool> over{false};
  std::thread kicker([&] {
    while (!over.load()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      flag_.fetch_or(Vcpu::LEAVE);
      vcpu_->kick();
    }
  });
  const RunResult result = vcpu_->run();
  over = true;
  kicker.join();
  EXPECT_NE(result, RunResult::failed) << vcpu_->failure();
}

// ---------------------------------------------------------------------------------------------------- state

TEST_F(KvmRun, RegistersComeBackAsTheyWereSet) {
  VcpuRegisters r = registers_64();
  for (u32 n = 0; n < 16; ++n) r.gpr[n] = 0x1111'2222'3333'0000 + n;
  r.fs.base = 0x7fff'1234'5678;
  r.gs.base = 0xffff'8000'1234'5678;
  r.cr2 = 0x1234;
  r.dr[0] = 0x4444;
  r.gdtr = {0x5000, 0x27};
  r.rflags = 0x246;
  r.kernel_gs_base = 0xffff'8000'0000'4444;
  start(r);
  const VcpuRegisters got = vcpu_->registers();
  for (u32 n = 0; n < 16; ++n) EXPECT_EQ(got.gpr[n], r.gpr[n]) << n;
  EXPECT_EQ(got.rip, r.rip);
  EXPECT_EQ(got.rflags, r.rflags);
  EXPECT_EQ(got.cs.attr, r.cs.attr);
  EXPECT_EQ(got.cs.limit, r.cs.limit);
  EXPECT_EQ(got.ss.attr, r.ss.attr);
  EXPECT_EQ(got.fs.base, r.fs.base);
  EXPECT_EQ(got.gs.base, r.gs.base);
  EXPECT_EQ(got.kernel_gs_base, r.kernel_gs_base);
  EXPECT_EQ(got.cr0, r.cr0);
  EXPECT_EQ(got.cr2, r.cr2);
  EXPECT_EQ(got.cr3, r.cr3);
  EXPECT_EQ(got.efer, r.efer);
  EXPECT_EQ(got.dr[0], r.dr[0]);
  EXPECT_EQ(got.gdtr.base, r.gdtr.base);
  EXPECT_EQ(got.gdtr.limit, r.gdtr.limit);
}

TEST_F(KvmRun, TheFpuImageIsFxsaves) {
  u8 image[512] = {}, got[512];
  const u16 fcw = 0x27f;
  const u32 mxcsr = 0x1f80;
  std::memcpy(image, &fcw, 2);
  std::memcpy(image + 24, &mxcsr, 4);
  for (u32 n = 0; n < 16; ++n) image[160 + n] = static_cast<u8>(n + 1);
  vcpu_->set_fpu_state(image);
  vcpu_->fpu_state(got);
  EXPECT_EQ(std::memcmp(image, got, 2), 0);
  EXPECT_EQ(std::memcmp(image + 24, got + 24, 4), 0);
  EXPECT_EQ(std::memcmp(image + 160, got + 160, 256), 0);
  // movdqu [2000h], xmm0; fnstcw [2010h]
  code({0xf3, 0x0f, 0x7f, 0x05, 0, 0x20, 0, 0, 0xd9, 0x3d, 0x10, 0x20, 0, 0, 0xf4});
  VcpuRegisters r = registers_32();
  r.cr4 = 0x200;
  start(r);
  EXPECT_EQ(run(), RunResult::halted);
  for (u32 n = 0; n < 16; ++n) EXPECT_EQ(memory_[DATA + n], n + 1);
  EXPECT_EQ(get<u16>(DATA + 16), fcw);
}

TEST_F(KvmRun, ResetInitAndStartUpLeadWhereTheManualSays) {
  VcpuRegisters r = vcpu_->registers();
  EXPECT_EQ(r.cs.selector, 0xf000);
  EXPECT_EQ(r.cs.base, 0xffff'0000u);
  EXPECT_EQ(r.rip, 0xfff0u);
  EXPECT_EQ(r.cr0 & 0xe000'0011, 0x6000'0010u);
  EXPECT_EQ(r.gpr[RDX], 0x0002'0ff2u) << "the processor's signature";
  start(registers_64());
  vcpu_->init();
  vcpu_->startup(0x12);
  r = vcpu_->registers();
  EXPECT_EQ(r.cs.selector, 0x1200);
  EXPECT_EQ(r.cs.base, 0x1'2000u);
  EXPECT_EQ(r.rip, 0u);
  EXPECT_EQ(r.cr0 & 1, 0u);
  EXPECT_EQ(r.efer, 0u);
  code({0xfe, 0xc3, 0xf4}, 0x1'2000);
  EXPECT_EQ(run(), RunResult::halted);
  EXPECT_EQ(gpr(RBX), 1u);
}

TEST_F(KvmRun, CpuidShowsTheModel) {
  code({0x0f, 0xa2, 0xf4}); // cpuid
  const auto leaf = [&](u32 n) {
    VcpuRegisters r = registers_32();
    r.gpr[RAX] = n;
    start(r);
    EXPECT_EQ(run(), RunResult::halted);
    return vcpu_->registers();
  };
  EXPECT_EQ(leaf(0).gpr[RBX], 0x6874'7541u); // "Auth"
  EXPECT_EQ(leaf(1).gpr[RAX], 0x0002'0ff2u);
  EXPECT_EQ(leaf(1).gpr[RCX] >> 24 & 1, 0u) << "no TSC deadline";
  EXPECT_EQ(leaf(1).gpr[RDX] & 0x0600'0171, 0x0600'0171u);
  EXPECT_EQ(leaf(0x4000'0000).gpr[RBX], 0x6e61'7254u); // "Tran"
  EXPECT_EQ(leaf(0x8000'0002).gpr[RAX], 0x6e61'7254u);
  EXPECT_EQ(leaf(0xd).gpr[RAX], 0u) << "what no model has";
}

// ---------------------------------------------------------------------------------------------------- debugger

TEST_F(KvmRun, ABreakpointStopsBeforeItsInstructionAndOnceOnly) {
  code({0x43, 0x43, 0x43, 0xf4}); // inc ebx, three times; hlt
  start(registers_32());
  vcpu_->set_debug({{CODE + 1}, false});
  EXPECT_EQ(run(), RunResult::debug);
  EXPECT_EQ(vcpu_->registers().rip, CODE + 1);
  EXPECT_EQ(gpr(RBX), 1u);
  EXPECT_EQ(run(), RunResult::halted) << "it goes on from there";
  EXPECT_EQ(gpr(RBX), 3u);
  EXPECT_EQ(memory_[CODE + 1], 0x43) << "the guest's memory is as it was";
}

TEST_F(KvmRun, NeighbouringBreakpointsAllStop) {
  code({0x43, 0x43, 0x43, 0xf4});
  start(registers_32());
  vcpu_->set_debug({{CODE, CODE + 1, CODE + 2}, false});
  for (u64 n = 0; n < 3; ++n) {
    EXPECT_EQ(run(), RunResult::debug);
    EXPECT_EQ(vcpu_->registers().rip, CODE + n);
  }
  vcpu_->set_debug({});
  EXPECT_EQ(run(), RunResult::halted);
  EXPECT_EQ(gpr(RBX), 3u);
  EXPECT_EQ(vcpu_->breakpoint_limit(), 4u);
}

TEST_F(KvmRun, AStepIsOneInstructionAlsoOverAPort) {
  code({0x43, 0xe6, 0x80, 0x43, 0xf4}); // inc ebx; out 80h, al; inc ebx; hlt
  start(registers_32());
  vcpu_->set_debug({{}, true});
  for (const u64 rip : {1, 3, 4}) {
    EXPECT_EQ(run(), RunResult::debug);
    EXPECT_EQ(vcpu_->registers().rip, CODE + rip);
  }
  EXPECT_EQ(platform_.ports.size(), 1u);
  EXPECT_EQ(vcpu_->registers().rflags & 0x100, 0u) << "no trap flag that the guest could see";
  vcpu_->set_debug({});
  EXPECT_EQ(run(), RunResult::halted);
}

TEST_F(KvmRun, ADebuggerSeesWhereALinearAddressLeads) {
  VcpuRegisters r = registers_64();
  put<u64>(TABLES + 0x3000 + 8 * 5, 0x7000 | 3); // page 5 is at 7000h
  put<u64>(TABLES + 0x3000 + 8 * 6, 0);          // page 6 is nowhere
  put<u64>(TABLES + 0x2008, 0x0020'0000 | 0x83); // a large page
  start(r);
  EXPECT_EQ(vcpu_->physical(0x5123), 0x7123u);
  EXPECT_EQ(vcpu_->physical(0x6123), std::nullopt);
  EXPECT_EQ(vcpu_->physical(0x20'1234), 0x20'1234u);
  EXPECT_EQ(vcpu_->physical(0x8000'0000'0000), std::nullopt) << "not canonical";
  EXPECT_EQ(get<u64>(TABLES + 0x3000 + 8 * 5), u64{0x7003}) << "no accessed bit";
  start(registers_32());
  EXPECT_EQ(vcpu_->physical(0x6123), 0x6123u);
}

// ---------------------------------------------------------------------------------------------------- dirty pages

TEST_F(KvmRun, DirtyPagesAreThoseThatTheGuestWrote) {
  const auto harvest = [&] {
    std::vector<u64> pages;
    const auto done = backend_->slots().harvest_dirty_pages([&](u64 gpa) { pages.push_back(gpa); });
    EXPECT_TRUE(done) << done.error().text;
    return pages;
  };
  ASSERT_TRUE(backend_->slots().log_dirty_pages(true));
  harvest();
  code({0xa2, 0x10, 0x20, 0, 0, 0xa2, 0, 0, 0x20, 0, 0x8a, 0x1d, 0, 0x50, 0, 0, 0xf4}); // stores to 2010h, 200000h
  start(registers_32());
  EXPECT_EQ(run(), RunResult::halted);
  EXPECT_EQ(harvest(), (std::vector<u64>{0x2000, 0x20'0000}));
  EXPECT_TRUE(harvest().empty());
  ASSERT_TRUE(backend_->slots().log_dirty_pages(false));
}

} // namespace
} // namespace transom
