// What the Multiboot loader hands over: module, command line, memory map, and the tables that firmware would have left.
#include "tests/guests/lib/guest.hpp"

namespace {

bool same(u64 address, const char* text) {
  for (;; ++address, ++text) {
    if (at<char>(address) != *text) return false;
    if (*text == 0) return true;
  }
}
u64 find_rsdp() {
  for (u64 a = 0xe0000; a < 0x100000; a += 16)
    if (at<u64>(a) == 0x2052545020445352) return a; // "RSD PTR "
  return 0;
}
bool sums_to_zero(u64 address, u64 bytes) {
  u8 sum = 0;
  for (u64 i = 0; i < bytes; ++i) sum = static_cast<u8>(sum + at<u8>(address + i));
  return sum == 0;
}

} // namespace

void guest_main() {
  check_equal(boot_magic, 0x2badb002, "EAX is Multiboot's magic");
  const u64 info = boot_info;
  const u32 flags = at<u32>(info);
  check_equal(flags & 0x4d, 0x4d, "memory, command line, modules and map are there");
  check(at<u32>(info + 8) > 30 * 1024 && at<u32>(info + 8) <= 31 * 1024, "upper memory of a machine of 32 MiB, in KiB");
  const u64 command_line = at<u32>(info + 16);
  bool found = false;
  for (u64 a = command_line; at<char>(a) != 0; ++a) found |= same(a, "one=1 two \"three four\"");
  check(found, "the command line");
  check_equal(at<u32>(info + 20), 1, "one module");
  const u64 module = at<u32>(info + 24), start = at<u32>(module), end = at<u32>(module + 4);
  check_equal(end - start, 5000, "its length");
  check_equal(start & 4095, 0, "it begins on a page");
  bool content = true;
  for (u64 i = 0; i < 5000; ++i) content &= at<u8>(start + i) == static_cast<u8>(i * 7);
  check(content, "its content");
  u64 usable = 0;
  const u64 map = at<u32>(info + 48), map_end = map + at<u32>(info + 44);
  for (u64 e = map; e < map_end; e += at<u32>(e) + 4)
    if (at<u32>(e + 20) == 1) usable += at<u64>(e + 12);
  check(usable > (31u << 20) && usable <= 32u << 20, "the memory map adds up to the memory");
  const u64 rsdp = find_rsdp();
  check(rsdp != 0 && sums_to_zero(rsdp, 20), "an RSDP");
  if (rsdp != 0) check(at<u32>(at<u32>(rsdp + 16)) == 0x54445352, "that leads to an RSDT");
}
