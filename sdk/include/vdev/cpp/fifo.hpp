// Fifo<T, N>: a queue of fixed size that can lie in a State. Every index is reduced modulo N, so that even a damaged
// State cannot make it touch memory outside itself.
#pragma once

#include "types.hpp"

namespace vdev {

template <class T, unsigned N>
struct Fifo {
  static_assert(N >= 1 && N <= 0xffff);
  std::array<T, N> data{};
  u16 head = 0; // of the oldest element
  u16 count = 0;

  static constexpr u32 capacity() { return N; }
  constexpr bool valid() const { return head < N && count <= N; }
  constexpr bool empty() const { return count == 0; }
  constexpr bool full() const { return count >= N; }
  constexpr u32 size() const { return count; }
  constexpr u32 room() const { return count >= N ? 0 : N - count; }

  // False, and nothing changes, when full.
  constexpr bool push(T value) {
    if (full()) return false;
    data[(u32{head} + count) % N] = value;
    count = u16(count + 1);
    return true;
  }
  // The oldest element; T{} when empty.
  constexpr T front() const { return empty() ? T{} : data[head % N]; }
  constexpr T back() const { return empty() ? T{} : data[(u32{head} + count - 1) % N]; }
  constexpr T pop() {
    if (empty()) return T{};
    const T value = data[head % N];
    head = u16((head + 1) % N);
    count = u16(count - 1);
    return value;
  }
  constexpr void clear() { head = count = 0; }

  friend constexpr bool operator==(const Fifo&, const Fifo&) = default;
  static void fields(auto& s, auto&& f) {
    f(1, "data", s.data);
    f(2, "head", s.head, N - 1);
    f(3, "count", s.count, N);
  }
};

} // namespace vdev
