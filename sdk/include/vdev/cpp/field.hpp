// Field<lo, width>: a bit field of a register, named as in the datasheet. The register stays a plain integer.
//   namespace lcr { constexpr Field<0, 2> WLS; constexpr Field<7> DLAB; }
//   if (lcr::DLAB(state.lcr)) …      lcr::WLS.set(state.lcr, 3);      u8 start = lcr::DLAB.of(1) | lcr::WLS.of(3);
#pragma once

#include "types.hpp"

namespace vdev {

template <unsigned Lo, unsigned Width = 1>
struct Field {
  static_assert(Width >= 1 && Lo + Width <= 64);
  static constexpr u64 ONES = Width == 64 ? ~u64{0} : (u64{1} << (Width % 64)) - 1;
  static constexpr u64 MASK = ONES << Lo;

  template <class Register>
  constexpr Register operator()(Register reg) const {
    static_assert(Lo + Width <= 8 * sizeof(Register), "the field lies outside this register");
    return Register((reg >> Lo) & ONES);
  }
  // Excess bits of `value` are dropped, as the wires of the chip would.
  template <class Register>
  constexpr void set(Register& reg, u64 value) const {
    static_assert(Lo + Width <= 8 * sizeof(Register), "the field lies outside this register");
    reg = Register((reg & ~MASK) | ((value & ONES) << Lo));
  }
  constexpr u64 of(u64 value) const { return (value & ONES) << Lo; }
};

// Replaces the bits of `reg` that `mask` names by those of `value`: a write to a register with read-only bits.
template <class Register>
constexpr void write_masked(Register& reg, u64 value, u64 mask) {
  reg = Register((reg & ~mask) | (value & mask));
}

} // namespace vdev
