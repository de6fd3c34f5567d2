// One list of fields serves save, load, check, compare and inspection. A State names its members once:
//
//   static void fields(auto& s, auto&& f) {
//     auto& [ier, rx, counters] = s;            // a member left out of this line does not compile
//     f(1, "ier", ier);                         // tag, name, member
//     f(2, "mode", mode, 5);                    // … and its greatest valid value, where the type allows more
//     f(3, "rx", rx);                           // a struct with its own fields(): tags 0x301, 0x302 …, names "rx.data"
//     … f(4, "counter", counters);                // an array of structs: tags 0x4iitt, names "counter[0].latch" …
//   }
//
// Tags at every level are 1–255 where structs nest, else free. Members are integers, bool, enums, and arrays of them.
#pragma once

#include <bit>
#include <concepts>
#include <cstdio>
#include <cstring>
#include <limits>
#include <type_traits>

#include "../ext/state.h"
#include "types.hpp"

namespace vdev {

static_assert(std::endian::native == std::endian::little, "scalars are read by their bytes");

namespace detail {

template <class T>
struct Element {
  using Type = T;
};
template <class T, std::size_t N>
struct Element<T[N]> : Element<T> {};
template <class T, std::size_t N>
struct Element<std::array<T, N>> : Element<T> {};

template <class T>
using element_t = typename Element<std::remove_cv_t<T>>::Type;

template <class T>
concept Scalar = std::is_integral_v<T> || std::is_enum_v<T>;

template <class T>
constexpr u64 maximum_of() {
  if constexpr (std::is_same_v<T, bool>) {
    return 1;
  } else {
    return sizeof(T) == 8 ? ~u64{0} : (u64{1} << (8 * sizeof(T) % 64)) - 1;
  }
}

// Calls visit(field, address of its first element) for every field, nested ones by their composed tag and name.
template <class Visit>
struct Walker {
  Visit& visit;
  u32 prefix = 0;
  const char* path = "";

  template <class Member>
  void operator()(u32 tag, const char* name, Member& member, u64 maximum = maximum_of<element_t<Member>>()) const {
    using T = element_t<Member>;
    constexpr u32 count = sizeof(Member) / sizeof(T);
    if constexpr (Scalar<T>) {
      char full[64];
      const vdev_state_field field = {
          sizeof(vdev_state_field), prefix | tag, join(full, name), sizeof(T), count, maximum};
      visit(field, &member);
    } else {
      static_assert(std::is_class_v<T>, "a field is an integer, an enum, a struct with fields(), or an array");
      auto* element = first(member);
      for (u32 i = 0; i < count; ++i) {
        char full[64];
        join(full, name);
        constexpr bool many = !std::is_same_v<T, std::remove_cv_t<Member>>;
        const std::size_t used = std::strlen(full);
        if constexpr (many) std::snprintf(full + used, sizeof full - used, "[%u]", i);
        const u32 inner = many ? ((prefix | tag) << 8 | (i & 0xff)) << 8 : (prefix | tag) << 8;
        T::fields(element[i], Walker{visit, inner, full});
      }
    }
  }

 private:
  template <class M>
  static auto* first(M& member) {
    if constexpr (
        requires {
          member.data();
          member.size();
        } &&
        !requires { member.head; }) {
      return first(*member.data());
    } else if constexpr (std::is_array_v<M>) {
      return first(member[0]);
    } else {
      return &member;
    }
  }
  // "path.name" in `full`, which is where nested walkers find their path. Long names are cut.
  const char* join(char (&full)[64], const char* name) const {
    std::size_t used = 0;
    for (const char* part : {path, *path ? "." : "", name}) {
      while (*part && used + 1 < sizeof full) full[used++] = *part++;
    }
    full[used] = 0;
    return full;
  }
};

inline u64 load_scalar(const void* base, u32 width, u32 index) {
  u64 value = 0;
  std::memcpy(&value, static_cast<const u8*>(base) + std::size_t{width} * index, width);
  return value;
}

template <class State>
bool is_valid(const State& state) {
  if constexpr (requires { state.valid(); }) return state.valid();
  return true;
}

} // namespace detail

// visit(const vdev_state_field&, const void* first_element)
template <class State, class Visit>
void for_each_field(State& state, Visit&& visit) {
  State::fields(state, detail::Walker<std::remove_reference_t<Visit>>{visit});
}
template <class State, class Visit>
void for_each_field(const State& state, Visit&& visit) {
  State::fields(state, detail::Walker<std::remove_reference_t<Visit>>{visit});
}

template <class State>
vdev_status save_state(const State& state, const vdev_state_sink& sink) {
  vdev_status status = VDEV_OK;
  for_each_field(state, [&](const vdev_state_field& field, const void* data) {
    if (status < 0) return;
    u64 values[sizeof(State)];
    for (u32 i = 0; i < field.count; ++i) values[i] = detail::load_scalar(data, field.width, i);
    status = sink.put(&sink, &field, values);
  });
  return status;
}

// Fills `state`, which holds reset values. VDEV_INVALID when a value exceeds its maximum or valid() says no.
template <class State>
vdev_status load_state(State& state, const vdev_state_source& source) {
  vdev_status status = VDEV_OK;
  for_each_field(state, [&](const vdev_state_field& field, void* data) {
    if (status < 0) return;
    u64 values[sizeof(State)] = {};
    const vdev_status got = source.get(&source, &field, values);
    if (got == VDEV_NOT_FOUND) return;
    if (got < 0) {
      status = got;
      return;
    }
    for (u32 i = 0; i < field.count && status == VDEV_OK; ++i) {
      if (values[i] > field.maximum) status = VDEV_INVALID;
    }
    for (u32 i = 0; i < field.count && status == VDEV_OK; ++i) {
      std::memcpy(static_cast<u8*>(data) + std::size_t{field.width} * i, &values[i], field.width);
    }
  });
  if (status == VDEV_OK && !detail::is_valid(state)) status = VDEV_INVALID;
  return status;
}

// Whether the bytes are a State that load_state could have produced. They are ranged as integers before any typed use.
template <class State>
vdev_status check_state(const void* memory, u32 bytes) {
  if (bytes != sizeof(State)) return VDEV_INVALID;
  State copy{};
  std::memcpy(static_cast<void*>(&copy), memory, sizeof copy);
  vdev_status status = VDEV_OK;
  for_each_field(copy, [&](const vdev_state_field& field, const void* data) {
    for (u32 i = 0; i < field.count; ++i) {
      if (detail::load_scalar(data, field.width, i) > field.maximum) status = VDEV_INVALID;
    }
  });
  if (status == VDEV_OK && !detail::is_valid(copy)) status = VDEV_INVALID;
  return status;
}

// The name and values of every scalar that differs: report(const vdev_state_field&, index, a, b).
template <class State, class Report>
void compare_states(const State& a, const State& b, Report&& report) {
  const auto* base_a = reinterpret_cast<const u8*>(&a);
  const auto* base_b = reinterpret_cast<const u8*>(&b);
  for_each_field(a, [&](const vdev_state_field& field, const void* data) {
    const std::size_t offset = std::size_t(static_cast<const u8*>(data) - base_a);
    for (u32 i = 0; i < field.count; ++i) {
      const u64 va = detail::load_scalar(base_a + offset, field.width, i);
      const u64 vb = detail::load_scalar(base_b + offset, field.width, i);
      if (va != vb) report(field, i, va, vb);
    }
  });
}

// The offset of the first byte of State that operator== sees but fields() does not list, or -1. (operator== ignores
// padding; flipping the lowest bit keeps a bool a bool.)
template <class State>
requires std::equality_comparable<State> i64 first_unlisted_byte() {
  State plain{};
  std::array<bool, sizeof(State)> listed{};
  const auto* base = reinterpret_cast<const u8*>(&plain);
  for_each_field(plain, [&](const vdev_state_field& field, const void* data) {
    const std::size_t offset = std::size_t(static_cast<const u8*>(data) - base);
    for (std::size_t i = 0; i < std::size_t{field.width} * field.count; ++i) listed[offset + i] = true;
  });
  for (std::size_t i = 0; i < sizeof(State); ++i) {
    State flipped = plain;
    reinterpret_cast<u8*>(&flipped)[i] ^= 1;
    if (!listed[i] && !(flipped == plain)) return i64(i);
  }
  return -1;
}

} // namespace vdev
