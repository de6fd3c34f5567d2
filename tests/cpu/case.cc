#include "tests/cpu/case.hpp"

#include <cstring>

#include "tests/cpu/random.hpp"

namespace transom::cpu_test {

u64 interesting_integer(Random& r) {
  switch (r.below(8)) {
    case 0: return r.below(32);
    case 1: return 0 - u64{r.below(8)};
    case 2: return u64{1} << r.below(64);
    case 3: return (u64{1} << r.below(64)) - 1;
    case 4: return static_cast<u32>(r.next());
    case 5: return r.next() & 0x0f0f'0f0f'0f0f'0f0f;
    default: return r.next();
  }
}
u32 interesting_float(Random& r) {
  static constexpr u32 SPECIAL[] = {0,           0x8000'0000, 0x3f80'0000, 0xbf80'0000, 0x7f80'0000, 0xff80'0000,
                                    0x7fc0'0000, 0x7f80'0001, 0xffc1'2345, 0x0000'0001, 0x807f'ffff, 0x0080'0000,
                                    0x7f7f'ffff, 0x4f00'0000, 0xcf00'0000, 0x3f00'0000, 0x4b7f'ffff, 0x5f00'0000};
  if (r.percent(60)) return SPECIAL[r.below(sizeof SPECIAL / sizeof SPECIAL[0])];
  if (r.percent(50)) return (static_cast<u32>(r.next()) & 0x807f'ffff) | (127 - 16 + r.below(48)) << 23;
  return static_cast<u32>(r.next());
}
u64 interesting_double(Random& r) {
  static constexpr u64 SPECIAL[] = {0,
                                    0x8000'0000'0000'0000,
                                    0x3ff0'0000'0000'0000,
                                    0xbff0'0000'0000'0000,
                                    0x7ff0'0000'0000'0000,
                                    0xfff0'0000'0000'0000,
                                    0x7ff8'0000'0000'0000,
                                    0x7ff0'0000'0000'0001,
                                    0xfff8'0000'1234'5678,
                                    0x0000'0000'0000'0001,
                                    0x800f'ffff'ffff'ffff,
                                    0x0010'0000'0000'0000,
                                    0x7fef'ffff'ffff'ffff,
                                    0x41e0'0000'0000'0000,
                                    0xc3e0'0000'0000'0000,
                                    0x43e0'0000'0000'0000,
                                    0x3fe0'0000'0000'0000,
                                    0x36a0'0000'0000'0000,
                                    0x47ef'ffff'f000'0000};
  if (r.percent(60)) return SPECIAL[r.below(sizeof SPECIAL / sizeof SPECIAL[0])];
  if (r.percent(50)) return (r.next() & 0x800f'ffff'ffff'ffff) | u64{1023 - 16 + r.below(80)} << 52;
  return r.next();
}
void interesting_extended(Random& r, u8* ten_bytes) {
  static constexpr u16 EXPONENT[] = {0,      1,      0x3ffe, 0x3fff, 0x4000, 0x401e,
                                     0x403e, 0x7ffe, 0x7fff, 0x3f80, 0x3c00, 0x43fe};
  static constexpr u64 SIGNIFICAND[] = {0,
                                        1,
                                        0x8000'0000'0000'0000,
                                        0xc000'0000'0000'0000,
                                        0xffff'ffff'ffff'ffff,
                                        0x8000'0000'0000'0001,
                                        0x4000'0000'0000'0000,
                                        0xc90f'daa2'2168'c235};
  u16 exponent = r.percent(60) ? EXPONENT[r.below(12)] : static_cast<u16>(0x3fff - 70 + r.below(140));
  u64 significand = r.percent(50) ? SIGNIFICAND[r.below(8)] : r.next() | u64{1} << 63;
  if (r.percent(10)) exponent = static_cast<u16>(r.next() & 0x7fff);
  if (r.percent(50)) exponent |= 0x8000;
  std::memcpy(ten_bytes, &significand, 8);
  std::memcpy(ten_bytes + 8, &exponent, 2);
}

const std::vector<u8>& arena_pattern() {
  static const std::vector<u8> pattern = [] {
    std::vector<u8> bytes(DATA_SIZE);
    Random r(42);
    for (u64 at = 0; at < DATA_SIZE; at += 16) {
      u8 chunk[16] = {};
      const u64 a = r.percent(50) ? interesting_integer(r) : interesting_double(r), b = interesting_double(r);
      std::memcpy(chunk, &a, 8);
      std::memcpy(chunk + 8, &b, 8);
      if (r.percent(25)) interesting_extended(r, chunk);
      if (r.percent(25))
        for (unsigned n = 0; n < 16; n += 4) {
          const u32 f = interesting_float(r);
          std::memcpy(chunk + n, &f, 4);
        }
      std::memcpy(&bytes[at], chunk, 16);
    }
    return bytes;
  }();
  return pattern;
}

void fill_arena(const Case& c, u8* data) {
  std::memcpy(data, arena_pattern().data(), DATA_WRITABLE);
  for (unsigned n = 0; n < c.pokes; ++n) std::memcpy(data + (c.poke[n].address - DATA), &c.poke[n].value, 8);
}

std::string describe(const Case& c) {
  std::string text;
  char line[256];
  const auto add = [&](auto... args) {
    std::snprintf(line, sizeof line, args...);
    text += line;
  };
  text += c.mode == Mode::bits64 ? "64-bit code" : c.mode == Mode::bits32 ? "32-bit code" : "16-bit code";
  add(" at %llx:", static_cast<unsigned long long>(c.start));
  for (unsigned n = 0; n < c.code_size; ++n) add(" %02x", c.code[n]);
  text += "\n";
  for (unsigned n = 0; n < 16; ++n)
    add("  r%-2u %016llx%s", n, static_cast<unsigned long long>(c.initial.gpr[n]), n % 4 == 3 ? "\n" : "");
  const soft::Fx& fx = c.initial.fx;
  add("  rflags %llx fcw %04x fsw %04x ftw %02x mxcsr %08x\n", static_cast<unsigned long long>(c.initial.rflags),
      fx.fcw, fx.fsw, fx.ftw, fx.mxcsr);
  for (unsigned n = 0; n < c.pokes; ++n)
    add("  [%llx] = %016llx\n", static_cast<unsigned long long>(c.poke[n].address),
        static_cast<unsigned long long>(c.poke[n].value));
  for (unsigned n = 0; n < 8; ++n) {
    u64 significand;
    u16 exponent;
    std::memcpy(&significand, fx.st[n], 8);
    std::memcpy(&exponent, fx.st[n] + 8, 2);
    add("  st%u %04x.%016llx%s", n, exponent, static_cast<unsigned long long>(significand), n % 4 == 3 ? "\n" : "");
  }
  for (unsigned n = 0; n < 16; ++n) {
    u64 half[2];
    std::memcpy(half, fx.xmm[n], 16);
    add("  xmm%-2u %016llx%016llx%s", n, static_cast<unsigned long long>(half[1]),
        static_cast<unsigned long long>(half[0]), n % 2 ? "\n" : "");
  }
  return text;
}

} // namespace transom::cpu_test
