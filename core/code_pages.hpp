// The code-page map: which pages of guest RAM hold decoded code, and which of those were written by somebody else.
//
// Guest RAM is written by other processes (and by the kernel on their behalf) while a software CPU keeps decoded copies
// of what lies there. The protocol has two halves, and their order is what makes it correct:
//   CPU:    mark(page)  →  read the bytes and decode
//   writer: data landed →  wrote(page)  →  any completion that the guest can see
// wrote() looks at the mark *after* the data landed, queues the invalidation and raises `pending`; the CPU looks at
// `pending` at every block head. Both sides use sequentially consistent accesses, so one of the two sees the other.
//
// Lives in memory shared by all processes of a domain; every field is an atomic and any bit pattern is valid.
#pragma once

#include <algorithm>
#include <atomic>

#include "core/types.hpp"

namespace transom {

class CodePages {
 public:
  // Bytes of zeroed shared memory needed for `pages` pages of guest RAM.
  static constexpr u64 bytes_for(u64 pages) {
    return sizeof(Header) + pages + 8 * words(pages) + 8 * words(words(pages));
  }

  CodePages() = default;
  CodePages(void* memory, u64 pages)
      : header_(static_cast<Header*>(memory)),
        dirty_(reinterpret_cast<std::atomic<u64>*>(header_ + 1)),
        summary_(dirty_ + words(pages)),
        marks_(reinterpret_cast<std::atomic<u8>*>(summary_ + words(words(pages)))),
        pages_(pages) {}

  u64 pages() const { return pages_; }

  // CPU: call before the bytes of the page are read for decoding.
  void mark(u64 page) {
    if (page < pages_) marks_[page].store(1, std::memory_order_seq_cst);
    std::atomic_thread_fence(std::memory_order_seq_cst); // the reads that follow are plain ones
  }
  // CPU: no decoded code is left on the page.
  void unmark(u64 page) {
    if (page < pages_) marks_[page].store(0, std::memory_order_seq_cst);
  }
  bool marked(u64 page) const { return page < pages_ && marks_[page].load(std::memory_order_relaxed) != 0; }

  // Writer, after the data landed and before any visible completion. True: a CPU has to drop decoded code, so the
  // caller also raises its exit request.
  bool wrote(u64 page) {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (page >= pages_ || marks_[page].load(std::memory_order_seq_cst) == 0) return false;
    dirty_[page / 64].fetch_or(u64{1} << (page % 64), std::memory_order_relaxed);
    summary_[page / 4096].fetch_or(u64{1} << (page / 64 % 64), std::memory_order_release);
    header_->pending.exchange(1, std::memory_order_seq_cst); // read-modify-write: harvest() acquires all writers
    return true;
  }
  bool wrote(u64 gpa, u64 length) {
    bool hit = false;
    const u64 last = gpa + length - 1;
    if (length == 0 || last < gpa) return false;
    for (u64 page = gpa >> PAGE_SHIFT; page <= std::min(last >> PAGE_SHIFT, pages_ - 1); ++page) hit |= wrote(page);
    return hit;
  }

  bool pending() const { return header_->pending.load(std::memory_order_seq_cst) != 0; }

  // CPU: calls drop(page) once for each page written since the last harvest.
  template <class Drop>
  void harvest(Drop&& drop) {
    header_->pending.exchange(0, std::memory_order_seq_cst);
    for (u64 s = 0; s < words(words(pages_)); ++s) {
      if (summary_[s].load(std::memory_order_acquire) == 0) continue;
      for (u64 hot = summary_[s].exchange(0, std::memory_order_acq_rel); hot != 0; hot &= hot - 1) {
        const u64 word = s * 64 + static_cast<u64>(__builtin_ctzll(hot));
        for (u64 bits = dirty_[word].exchange(0, std::memory_order_acq_rel); bits != 0; bits &= bits - 1)
          drop(word * 64 + static_cast<u64>(__builtin_ctzll(bits)));
      }
    }
  }

 private:
  struct Header {
    std::atomic<u32> pending;
    u32 reserved[15];
  };
  static constexpr u64 words(u64 bits) { return (bits + 63) / 64; }

  Header* header_ = nullptr;
  std::atomic<u64>* dirty_ = nullptr;   // one bit a page: written since the last harvest
  std::atomic<u64>* summary_ = nullptr; // one bit a word of dirty_
  std::atomic<u8>* marks_ = nullptr;    // one byte a page: decoded code was taken from here
  u64 pages_ = 0;
};

} // namespace transom
