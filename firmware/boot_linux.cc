// The Linux/x86 boot protocol (Documentation/arch/x86/boot.rst, zero-page.rst): bzImage, 32-bit and 64-bit entry.
#include <algorithm>

#include "firmware/boot_placer.hpp"

namespace transom::firmware {
namespace {

// Offsets in the image, and in boot_params alike.
enum Field : u64 {
  ACPI_RSDP_ADDR = 0x070,
  E820_ENTRIES = 0x1e8,
  SETUP_SECTS = 0x1f1,
  SYSSIZE = 0x1f4,
  VID_MODE = 0x1fa,
  BOOT_FLAG = 0x1fe,
  JUMP = 0x200,
  HEADER = 0x202,
  VERSION = 0x206,
  TYPE_OF_LOADER = 0x210,
  LOADFLAGS = 0x211,
  CODE32_START = 0x214,
  RAMDISK_IMAGE = 0x218,
  RAMDISK_SIZE = 0x21c,
  CMD_LINE_PTR = 0x228,
  INITRD_ADDR_MAX = 0x22c,
  KERNEL_ALIGNMENT = 0x230,
  RELOCATABLE = 0x234,
  XLOADFLAGS = 0x236,
  CMDLINE_SIZE = 0x238,
  PREF_ADDRESS = 0x258,
  INIT_SIZE = 0x260,
  SETUP_DATA = 0x250,
  E820_TABLE = 0x2d0,
};
constexpr u64 HEADER_MAX_END = 0x290; // the e820 signature area begins after it
constexpr u64 SECTOR = 512, MIB = 1 << 20;
constexpr u8 LOADED_HIGH = 1 << 0;
constexpr u16 XLF_KERNEL_64 = 1 << 0;
constexpr u8 UNREGISTERED_LOADER = 0xff;
constexpr u32 HDRS = 0x53726448;

// What the setup header says, by the version in which each field came.
struct SetupHeader {
  u16 version = 0;
  u8 loadflags = 0;
  u64 payload = 0; // offset of the protected-mode kernel in the file
  u64 payload_size = 0;
  u64 initrd_end = 0x3800'0000;
  u64 cmdline_size = 255;
  bool relocatable = false;
  bool entry_64 = false;
  u64 load_address = MIB; // where the payload goes
  u64 run_address = MIB;  // where it will run, for init_size bytes
  u64 init_size = 0;
  Bytes raw; // from 1F1h
};

Result<SetupHeader> parse(const BootPlacer& placer) {
  const ByteView image = placer.boot().kernel;
  SetupHeader h;
  const u64 header_end = std::min<u64>(HEADER + image[JUMP + 1], HEADER_MAX_END);
  if (le16_at(image, BOOT_FLAG) != 0xaa55)
    return placer.fail("no 55 AA at 1FEh, where a bzImage has it: the file is damaged");
  h.version = le16_at(image, VERSION);
  if (h.version < 0x0202)
    return placer.fail("boot protocol " + std::to_string(h.version >> 8) + "." + std::to_string(h.version & 0xff) +
                       "; 2.2 and later are accepted");
  if (header_end > image.size() || header_end < CMD_LINE_PTR + 4)
    return placer.fail("the setup header ends at " + hex(header_end) + ", the file at " + hex(image.size()) +
                       ": the file is damaged");
  h.loadflags = image[LOADFLAGS];
  if ((h.loadflags & LOADED_HIGH) == 0) return placer.fail("a zImage, which loads below 1 MiB: use a bzImage");

  const u64 setup_sects = image[SETUP_SECTS] != 0 ? image[SETUP_SECTS] : 4;
  h.payload = (setup_sects + 1) * SECTOR;
  if (h.payload >= image.size())
    return placer.fail(hex(h.payload) + " bytes of setup code in a file of " + hex(image.size()) +
                       " bytes: the file is cut off");
  h.payload_size = image.size() - h.payload;
  h.raw.assign(image.begin() + SETUP_SECTS, image.begin() + static_cast<i64>(header_end));

  const auto has = [&](u16 version, u64 field, u64 width) {
    return h.version >= version && field + width <= header_end;
  };
  if (has(0x0203, INITRD_ADDR_MAX, 4)) h.initrd_end = u64{le32_at(image, INITRD_ADDR_MAX)} + 1;
  if (has(0x0204, SYSSIZE, 4)) {
    const u64 needed = u64{le32_at(image, SYSSIZE)} * 16;
    if (needed > h.payload_size + 15)
      return placer.fail("the kernel has " + hex(needed) + " bytes, the file only " + hex(h.payload_size) +
                         " after the setup code: the file is cut off");
  }
  if (has(0x0205, RELOCATABLE, 1)) h.relocatable = image[RELOCATABLE] != 0;
  if (has(0x0206, CMDLINE_SIZE, 4)) h.cmdline_size = le32_at(image, CMDLINE_SIZE);
  if (has(0x020a, PREF_ADDRESS, 8)) h.run_address = le64_at(image, PREF_ADDRESS);
  if (has(0x020a, INIT_SIZE, 4)) h.init_size = le32_at(image, INIT_SIZE);
  if (has(0x020c, XLOADFLAGS, 2)) h.entry_64 = (le16_at(image, XLOADFLAGS) & XLF_KERNEL_64) != 0;
  // A relocatable kernel is put where it wants to run; another one knows only 1 MiB.
  if (h.relocatable && h.run_address >= MIB) h.load_address = h.run_address;
  return h;
}

// The payload as loaded, and the memory in which it unpacks and runs before it reads the memory map.
Result<void> claim_kernel(BootPlacer& placer, const SetupHeader& h) {
  const u64 wanted = std::max(h.init_size, h.payload_size);
  if (h.run_address >= GuestMemory::HIGH_BASE)
    return placer.fail("it wants to run at " + hex(h.run_address) + "; it has to be below 4 GiB");
  const u64 begin = std::min(h.load_address, h.run_address);
  const u64 end = std::max(h.load_address + h.payload_size, h.run_address + wanted);
  return placer.claim(begin, end - begin, "the kernel with the memory it needs to start");
}

} // namespace

bool is_linux_image(ByteView image) { return image.size() >= HEADER_MAX_END && le32_at(image, HEADER) == HDRS; }

void place_boot_params(BootPlacer& placer, const LinuxHandover& handover) {
  Bytes params(PAGE_SIZE, 0);
  std::copy(handover.setup_header.begin(), handover.setup_header.end(), params.begin() + SETUP_SECTS);
  if (handover.setup_header.empty()) { // what a loader's header must say in any case
    set_le(params, BOOT_FLAG, 2, 0xaa55);
    set_le(params, HEADER, 4, HDRS);
    set_le(params, VERSION, 2, 0x020c);
    set_le(params, LOADFLAGS, 1, LOADED_HIGH);
    set_le(params, KERNEL_ALIGNMENT, 4, 2 * MIB);
    set_le(params, CMDLINE_SIZE, 4, BOOT_CMDLINE_MAX - 1);
  }
  set_le(params, ACPI_RSDP_ADDR, 8, placer.tables().rsdp);
  set_le(params, VID_MODE, 2, 0xffff); // normal
  set_le(params, TYPE_OF_LOADER, 1, UNREGISTERED_LOADER);
  set_le(params, CODE32_START, 4, handover.load_address);
  set_le(params, RAMDISK_IMAGE, 4, handover.initrd);
  set_le(params, RAMDISK_SIZE, 4, handover.initrd != 0 ? placer.boot().initrd.size() : 0);
  set_le(params, CMD_LINE_PTR, 4, BOOT_CMDLINE);
  set_le(params, SETUP_DATA, 8, 0);
  const Bytes e820 = e820_bytes(placer.tables().e820);
  set_le(params, E820_ENTRIES, 1, placer.tables().e820.size());
  std::copy(e820.begin(), e820.end(), params.begin() + E820_TABLE);
  placer.fill(BOOT_INFO, params);
}

Result<BootState> load_linux(BootPlacer& placer) {
  const auto header = parse(placer);
  if (!header) return tl::unexpected(header.error());
  if (const auto claimed = claim_kernel(placer, *header); !claimed) return tl::unexpected(claimed.error());
  if (const auto placed = placer.place_cmdline(header->cmdline_size); !placed) return tl::unexpected(placed.error());
  const auto initrd = placer.place_initrd(header->initrd_end);
  if (!initrd) return tl::unexpected(initrd.error());

  placer.fill(header->load_address, ByteView(placer.boot().kernel).subspan(header->payload));
  place_boot_params(placer, {header->raw, header->load_address, *initrd});
  BootState state =
      header->entry_64 ? placer.long_mode(header->load_address + 0x200) : placer.protected_mode(header->load_address);
  state.gpr[RSI] = BOOT_INFO;
  return state;
}

} // namespace transom::firmware
