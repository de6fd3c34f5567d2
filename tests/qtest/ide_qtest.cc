// The same dialogues with QEMU's piix3-ide, through its qtest socket, and with this device: what drivers can see must
// be the same. Where the two differ on purpose, the dialogue masks it and says so. Skipped where QEMU is not installed.
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <random>
#include <sys/wait.h>
#include <unistd.h>

#include "plugins/ide/ide_bench.hpp"
#include "tests/qtest/qtest_client.hpp"

namespace ide::test {
namespace {

constexpr u32 DISK_SECTORS = 4096;

// What a dialogue needs of a machine.
class Machine {
 public:
  virtual ~Machine() = default;
  virtual u32 in(u16 port, u32 width) = 0;
  virtual void out(u16 port, u32 width, u32 value) = 0;
  virtual std::vector<u8> memory(u32 address, u32 length) = 0;
  virtual void put(u32 address, const std::vector<u8>& bytes) = 0;
  virtual void settle() = 0; // until nothing is in flight
};

class Ours : public Machine {
 public:
  Ours() {
    Options options = drives({disk(DISK_SECTORS)});
    options.ram_bytes = 4 << 20;
    bench_ = std::make_unique<Ide>(std::move(options));
  }
  u32 in(u16 port, u32 width) override {
    const auto [region, offset] = at(port);
    return u32(bench_->in(region, offset, width));
  }
  void out(u16 port, u32 width, u32 value) override {
    const auto [region, offset] = at(port);
    bench_->out(region, offset, width, value);
  }
  std::vector<u8> memory(u32 address, u32 length) override { return bench_->memory(address, length); }
  void put(u32 address, const std::vector<u8>& bytes) override { bench_->fill_memory(address, bytes); }
  void settle() override { bench_->complete_all(); }

 private:
  static std::pair<u32, u64> at(u16 port) {
    if (port >= 0xc000) return {4, port - 0xc000u};
    return port == 0x3f6 ? std::pair<u32, u64>{1, 0} : std::pair<u32, u64>{0, port - 0x1f0u};
  }
  std::unique_ptr<Ide> bench_;
};

// The image that QEMU works on: the same pattern, in a file that goes with the test.
struct Image {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("transom-ide-" + std::to_string(::getpid()) + ".raw");
  Image() {
    const auto bytes = pattern(0, DISK_SECTORS);
    std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), i64(bytes.size()));
  }
  ~Image() { std::filesystem::remove(path); }
};

class Qemu : public Machine {
 public:
  Qemu() : client_({"-drive", "file=" + image_.path.string() + ",format=raw,if=ide"}) {
    constexpr u32 ide_function = 0x0900; // 00:01.1
    for (const auto& [offset, value] : {std::pair{0x20u, 0xc000u}, {0x40u, 0x80008000u}, {0x04u, 0x0107u}}) {
      client_.outl_config(ide_function | offset, value);
    }
  }
  u32 in(u16 port, u32 width) override {
    return width == 1 ? client_.inb(port) : width == 2 ? client_.inw(port) : client_.inl(port);
  }
  void out(u16 port, u32 width, u32 value) override {
    width == 1   ? client_.outb(port, u8(value))
    : width == 2 ? client_.outw(port, u16(value))
                 : client_.outl(port, value);
  }
  std::vector<u8> memory(u32 address, u32 length) override { return client_.read_memory(address, length); }
  void put(u32 address, const std::vector<u8>& bytes) override { client_.write_memory(address, bytes); }
  // Its medium is asynchronous too: BSY, or a bus master that is active without an interrupt, is work in progress. A
  // transfer that waits for ever looks the same, so this gives up in the end.
  void settle() override {
    for (int i = 0; i < 400; ++i) {
      const bool busy = in(0x3f6, 1) & st::BSY, active = (in(0xc002, 1) & 5) == 1;
      if (!busy && !active) return;
      ::usleep(500);
    }
  }

 private:
  Image image_;
  transom::qtest::QtestClient client_;
};

// A driver on either machine; what it sees goes into a transcript.
class Driver {
 public:
  explicit Driver(Machine& machine) : m_(machine) {}
  std::string transcript;

  void note(const std::string& what, u32 value) {
    char line[96];
    std::snprintf(line, sizeof line, "%s %x\n", what.c_str(), value);
    transcript += line;
  }
  void note(const std::string& what, const std::vector<u8>& bytes) {
    u32 hash = 2166136261u;
    for (const u8 b : bytes) hash = (hash ^ b) * 16777619u;
    note(what, hash);
  }
  void set(u32 reg, u8 value) { m_.out(u16(0x1f0 + reg), 1, value); }
  u8 get(u32 reg) { return u8(m_.in(u16(0x1f0 + reg), 1)); }
  // Bit 4 is obsolete: QEMU leaves it out after an abort.
  void note_status() { note("status", get(STATUS_COMMAND) & ~st::DSC), note("bmista", bmista()); }
  u32 bmista() { return m_.in(0xc002, 1); }
  void control(u8 value) { m_.out(0x3f6, 1, value); }
  void command(u8 code, u64 lba, u32 count) {
    set(SECTOR_COUNT, u8(count >> 8)), set(SECTOR_COUNT, u8(count));
    set(LBA_LOW, u8(lba >> 24)), set(LBA_MID, 0), set(LBA_HIGH, 0);
    set(LBA_LOW, u8(lba)), set(LBA_MID, u8(lba >> 8)), set(LBA_HIGH, u8(lba >> 16));
    set(DEVICE, 0xe0), set(STATUS_COMMAND, code);
  }
  void acknowledge() { m_.out(0xc002, 1, 0x06); }
  // With nIEN, as drivers do it: QEMU 7.2 makes an interrupt of a reset in mid-write, and shows READY while SRST is
  // held. A device does neither [ATA 9.2].
  void soft_reset() { control(0x0e), control(0x08); }

  void pio_read(u8 code, u64 lba, u32 sectors, u32 block) {
    command(code, lba, sectors);
    for (u32 left = sectors; left > 0;) {
      m_.settle();
      note_status(), acknowledge();
      const u32 now = std::min(left, block);
      std::vector<u8> data;
      for (u32 i = 0; i < now * SECTOR / 4; ++i) {
        const u32 v = m_.in(0x1f0, 4);
        for (u32 k = 0; k < 4; ++k) data.push_back(u8(v >> 8 * k));
      }
      note("data", data);
      left -= now;
    }
    note_status();
  }
  void pio_write(u8 code, u64 lba, u32 sectors, u8 salt) {
    const auto data = pattern(lba, sectors, salt);
    command(code, lba, sectors);
    for (u32 i = 0; i < data.size(); i += 2) {
      if (i % SECTOR == 0) m_.settle(), note_status(), acknowledge();
      m_.out(0x1f0, 2, data[i] | data[i + 1] << 8);
    }
    m_.settle();
    note_status(), acknowledge();
  }
  struct Region {
    u32 address, bytes;
  };
  void dma(u8 code, u64 lba, u32 sectors, const std::vector<Region>& regions, bool to_memory, bool early) {
    std::vector<u8> table;
    for (std::size_t i = 0; i < regions.size(); ++i) {
      const Prd entry{regions[i].address, u16(regions[i].bytes), u16(i + 1 == regions.size() ? 0x8000 : 0)};
      const u8* bytes = reinterpret_cast<const u8*>(&entry);
      table.insert(table.end(), bytes, bytes + sizeof entry);
    }
    m_.put(TABLE, table);
    const u8 direction = to_memory ? 8 : 0;
    m_.out(0xc004, 4, TABLE), m_.out(0xc000, 1, direction), acknowledge();
    if (early) m_.out(0xc000, 1, direction | 1);
    command(code, lba, sectors);
    if (!early) note("waiting", m_.in(0x3f6, 1)), note("bmicom", m_.in(0xc000, 1)), m_.out(0xc000, 1, direction | 1);
    m_.settle();
    note("bmista", bmista());
    m_.out(0xc000, 1, direction);
    note_status(), acknowledge();
    if (to_memory) {
      for (const Region& r : regions) note("memory", m_.memory(r.address, r.bytes ? r.bytes : 0x10000));
    }
  }
  Machine& machine() { return m_; }

 private:
  Machine& m_;
};

template <class Dialogue>
void same_on_both(Dialogue dialogue) {
  if (!transom::qtest::qemu_is_installed()) GTEST_SKIP() << "qemu-system-x86_64 is not installed";
  Ours ours;
  Qemu qemu;
  Driver a(ours), b(qemu);
  dialogue(a), dialogue(b);
  EXPECT_EQ(a.transcript, b.transcript);
  EXPECT_GT(a.transcript.size(), 20u);
}

TEST(IdeQemu, SoftResetAndRegisters) {
  same_on_both([](Driver& d) {
    d.soft_reset();
    d.note_status();
    for (u32 reg = 1; reg <= 5; ++reg) d.note("signature", d.get(reg));
    for (u32 reg = 2; reg <= 5; ++reg) d.set(reg, u8(0x31 * reg)), d.set(reg, u8(0x57 * reg));
    for (const u8 hob : {u8{0x88}, u8{0x08}}) {
      d.control(hob);
      for (u32 reg = 2; reg <= 5; ++reg) d.note("register", d.get(reg));
    }
    d.control(0x88), d.set(DEVICE, 0xe0);
    d.note("hob is over", d.get(LBA_LOW));
    d.set(DEVICE, 0xb0);
    d.note("absent device 1", d.get(STATUS_COMMAND));
    d.note("its echo", d.get(DEVICE));
  });
}

TEST(IdeQemu, PioReads) {
  same_on_both([](Driver& d) {
    d.pio_read(cmd::READ_SECTORS, 0, 1, 1);
    d.pio_read(cmd::READ_SECTORS, 63, 5, 1);
    d.pio_read(cmd::READ_SECTORS_EXT, 4090, 6, 1);
    d.set(SECTOR_COUNT, 4), d.set(STATUS_COMMAND, cmd::SET_MULTIPLE), d.note_status();
    d.pio_read(cmd::READ_MULTIPLE, 17, 10, 4);
    d.pio_read(cmd::READ_MULTIPLE_EXT, 18, 8, 4);
  });
}

TEST(IdeQemu, PioWritesCanBeReadBack) {
  same_on_both([](Driver& d) {
    d.pio_write(cmd::WRITE_SECTORS, 40, 3, 1);
    d.pio_write(cmd::WRITE_SECTORS_EXT, 100, 2, 2);
    d.pio_read(cmd::READ_SECTORS, 39, 5, 1);
    d.pio_read(cmd::READ_SECTORS, 99, 4, 1);
  });
}

TEST(IdeQemu, DmaInEitherOrderAndWithRoomToSpare) {
  same_on_both([](Driver& d) {
    for (const bool early : {false, true}) {
      d.dma(cmd::READ_DMA, 7, 8, {{MEMORY, 4096}}, true, early);
      d.dma(cmd::READ_DMA, 9, 128, {{MEMORY, 0}}, true, early);
      d.dma(cmd::READ_DMA, 11, 2, {{MEMORY, 512}, {MEMORY + 0x1000, 0x1000}}, true, early); // stays active
      d.machine().put(MEMORY, pattern(5, 8, 3));
      d.dma(cmd::WRITE_DMA_EXT, 200, 8, {{MEMORY, 1024}, {MEMORY + 1024, 3072}}, false, early);
      d.dma(cmd::READ_DMA_EXT, 199, 10, {{MEMORY + 0x8000, 5120}}, true, early);
    }
  });
}

TEST(IdeQemu, RandomTablesGiveTheSameBytes) {
  same_on_both([](Driver& d) {
    std::mt19937 random(7);
    for (int round = 0; round < 40; ++round) {
      const u32 sectors = 1 + random() % 64;
      std::vector<Driver::Region> regions;
      u32 address = MEMORY, left = sectors * SECTOR;
      while (left > 0 && regions.size() < 60) {
        const u32 bytes = std::min(left, 2 + 2 * u32(random() % 1500));
        regions.push_back({address, bytes});
        address += bytes + (random() % 3 ? 0 : 2 * (random() % 900));
        left -= bytes;
      }
      if (left > 0) regions.push_back({address, left});
      const u64 lba = random() % 4000;
      const bool early = random() % 2;
      if (random() % 3 == 0) {
        d.machine().put(MEMORY, pattern(lba, 160, u8(random())));
        d.dma(cmd::WRITE_DMA, lba, sectors, regions, false, early);
        d.pio_read(cmd::READ_SECTORS, lba, std::min(sectors, 3u), 1);
      } else {
        d.dma(cmd::READ_DMA, lba, sectors, regions, true, early);
      }
    }
  });
}

TEST(IdeQemu, SimpleCommandsAndRefusals) {
  same_on_both([](Driver& d) {
    const u8 codes[] = {0x00, 0x08, 0x10, 0xa0, 0xa1, 0xe1, 0xe3, 0xe5, 0xe7, 0xea, 0x90, 0xff, 0x01, 0x66, 0xf8};
    for (const u8 code : codes) {
      d.command(code, 0, 0);
      d.machine().settle();
      d.note("command", code);
      d.note_status(), d.acknowledge();
      if (code != 0x90) d.note("error", d.get(ERROR_FEATURES) & er::ABRT);
      if (code == 0xf8) d.note("native max", d.get(LBA_LOW) | d.get(LBA_MID) << 8 | d.get(LBA_HIGH) << 16);
      if (code == 0xe5) d.note("power", d.get(SECTOR_COUNT));
    }
  });
}

// Everything above in any order, with transfers left in the middle by a soft reset.
TEST(IdeQemu, RandomDialogues) {
  same_on_both([](Driver& d) {
    std::mt19937 random(11);
    for (int step = 0; step < 120; ++step) {
      const u64 lba = random() % 4000;
      const u32 sectors = 1 + random() % 6;
      switch (random() % 8) {
        case 0: d.pio_read(cmd::READ_SECTORS, lba, sectors, 1); break;
        case 1: d.pio_read(cmd::READ_MULTIPLE_EXT, lba, sectors, 16); break;
        case 2: d.pio_write(cmd::WRITE_SECTORS, lba, sectors, u8(random())); break;
        case 3: d.dma(cmd::READ_DMA, lba, sectors, {{MEMORY, sectors * SECTOR}}, true, random() % 2); break;
        case 4:
          d.machine().put(MEMORY, pattern(lba, sectors, u8(random())));
          d.dma(cmd::WRITE_DMA, lba, sectors, {{MEMORY, sectors * SECTOR}}, false, random() % 2);
          break;
        case 5: // a read that nobody finishes
          d.command(cmd::READ_SECTORS, lba, sectors);
          d.machine().settle();
          for (u32 i = random() % 200; i > 0; --i) d.machine().in(0x1f0, 2);
          d.soft_reset(), d.note_status(), d.acknowledge();
          break;
        case 6: // a write that nobody finishes: it must not reach the disk
          d.command(cmd::WRITE_SECTORS, lba, sectors);
          for (u32 i = random() % 250; i > 0; --i) d.machine().out(0x1f0, 2, 0xdead);
          d.soft_reset(), d.note_status(), d.acknowledge();
          d.pio_read(cmd::READ_SECTORS, lba, 1, 1);
          break;
        default: d.command(cmd::CHECK_POWER, 0, 0), d.note_status(), d.acknowledge();
      }
      d.note("count", d.get(ERROR_FEATURES) & er::ABRT);
    }
  });
}

TEST(IdeQemu, BusMasterRegisters) {
  same_on_both([](Driver& d) {
    for (const u32 value : {0xffu, 0x20u, 0x00u, 0x66u})
      d.machine().out(0xc002, 1, value), d.note("bmista", d.bmista());
    d.machine().out(0xc004, 4, 0xffffffff), d.note("table", d.machine().in(0xc004, 4));
    d.machine().out(0xc004, 4, 0x12345678), d.note("table", d.machine().in(0xc004, 4));
    d.machine().out(0xc004, 4, TABLE), d.machine().put(TABLE, {0, 0, 1, 0, 0, 0, 0, 0x80});
    d.machine().out(0xc000, 1, 0xf8), d.note("bmicom", d.machine().in(0xc000, 1));
    d.machine().out(0xc000, 1, 0x09), d.note("bmicom", d.machine().in(0xc000, 1)), d.note("bmista", d.bmista());
    d.machine().out(0xc000, 1, 0x08), d.note("bmista", d.bmista());
  });
}

} // namespace
} // namespace ide::test
