// The code-page map: which pages of guest RAM hold decoded code, and which of those were written by somebody else.
//
// Guest RAM is written by other processes (and by the kernel on their behalf) and by other vCPUs while a software CPU
// keeps decoded copies of what lies there. The protocol has two halves, and their order is what makes it correct:
//   CPU:    mark(page)  →  read the bytes and decode
//   writer: data landed →  wrote(page)  →  any completion that the guest can see
// wrote() looks at the mark *after* the data landed, queues the invalidation and raises `pending`; the CPU looks at
// `pending` at every block head. Both sides use sequentially consistent accesses, so one of the two sees the other.
//
// Each vCPU has decoded code of its own: a page's mark has one bit a vCPU, and what was written is queued for each.
// Another vCPU's stores do not call wrote() as long as it believes that nobody marked the page; `news` tells it when
// that has to be looked at again.
//
// Lives in memory shared by all processes of a domain; every field is an atomic and any bit pattern is valid.
#pragma once

#include <algorithm>
#include <atomic>

#include "core/types.hpp"

namespace transom {

class CodePages {
 public:
  static constexpr u32 VCPUS = 8; // bits of a mark

  // Bytes of zeroed shared memory needed for `pages` pages of guest RAM and `vcpus` vCPUs.
  static constexpr u64 bytes_for(u64 pages, u32 vcpus = 1) {
    return sizeof(Header) + 64 * words(pages) + vcpus * 8 * (words(pages) + words(words(pages)));
  }

  CodePages() = default;
  CodePages(void* memory, u64 pages, u32 vcpus = 1)
      : header_(static_cast<Header*>(memory)),
        marks_(reinterpret_cast<std::atomic<u8>*>(header_ + 1)),
        queues_(reinterpret_cast<std::atomic<u64>*>(marks_ + 64 * words(pages))),
        pages_(pages),
        vcpus_(std::min(vcpus, VCPUS)) {}

  u64 pages() const { return pages_; }

  bool marked(u64 page) const { return page < pages_ && marks_[page].load(std::memory_order_relaxed) != 0; }

  // --- writer: after the data landed and before any visible completion. The vCPUs that have to drop decoded code, one
  // bit each; the caller also raises their exit flags.
  u8 wrote(u64 page) { return queue(page, 0xff); }
  u8 wrote(u64 gpa, u64 length) {
    u8 hit = 0;
    const u64 last = gpa + length - 1;
    if (length == 0 || last < gpa) return 0;
    for (u64 page = gpa >> PAGE_SHIFT; page <= std::min(last >> PAGE_SHIFT, pages_ - 1); ++page) hit |= wrote(page);
    return hit;
  }

 private:
  friend class VcpuCodePages;
  struct alignas(64) PerVcpu {
    std::atomic<u32> pending; // something is queued
    std::atomic<u32> news;    // somebody marked a page
  };
  struct Header {
    PerVcpu vcpu[VCPUS];
  };
  static constexpr u64 words(u64 bits) { return (bits + 63) / 64; }
  // One bit a page: written since the vCPU's last harvest; behind it one bit a word of that.
  std::atomic<u64>* dirty(u32 vcpu) const { return queues_ + vcpu * (words(pages_) + words(words(pages_))); }

  u8 queue(u64 page, u8 whom) const {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (page >= pages_) return 0;
    u32 marks = marks_[page].load(std::memory_order_seq_cst) & whom;
    const u8 hit = static_cast<u8>(marks & ((1u << vcpus_) - 1));
    for (marks = hit; marks != 0; marks &= marks - 1) {
      const u32 v = static_cast<u32>(__builtin_ctz(marks));
      std::atomic<u64>* const bits = dirty(v);
      bits[page / 64].fetch_or(u64{1} << (page % 64), std::memory_order_relaxed);
      bits[words(pages_) + page / 4096].fetch_or(u64{1} << (page / 64 % 64), std::memory_order_release);
      header_->vcpu[v].pending.exchange(1, std::memory_order_seq_cst); // harvest() acquires all writers
    }
    return hit;
  }

  Header* header_ = nullptr;
  std::atomic<u8>* marks_ = nullptr; // one byte a page: bit v = vCPU v decoded code from here
  std::atomic<u64>* queues_ = nullptr;
  u64 pages_ = 0;
  u32 vcpus_ = 0;
};

// The half of one vCPU.
class VcpuCodePages {
 public:
  VcpuCodePages(const CodePages& map, u32 vcpu) : map_(map), vcpu_(vcpu), bit_(static_cast<u8>(1u << vcpu)) {}

  u64 pages() const { return map_.pages_; }
  // Call before the bytes of the page are read for decoding.
  void mark(u64 page) {
    if (page < map_.pages_) {
      const u8 before = map_.marks_[page].fetch_or(bit_, std::memory_order_seq_cst);
      for (u32 v = 0; v < map_.vcpus_; ++v)
        if (v != vcpu_ && (before >> v & 1) == 0) map_.header_->vcpu[v].news.store(1, std::memory_order_seq_cst);
    }
    std::atomic_thread_fence(std::memory_order_seq_cst); // the reads that follow are plain ones
  }
  // No decoded code is left on the page.
  void unmark(u64 page) {
    if (page < map_.pages_) map_.marks_[page].fetch_and(static_cast<u8>(~bit_), std::memory_order_seq_cst);
  }
  // Other vCPUs have code there: stores have to tell them.
  bool marked_by_others(u64 page) const {
    return map_.vcpus_ > 1 && page < map_.pages_ && (map_.marks_[page].load(std::memory_order_relaxed) & ~bit_) != 0;
  }
  // True once after another vCPU marked pages that this one may still be writing to without a word.
  bool take_news() {
    auto& news = map_.header_->vcpu[vcpu_].news;
    return news.load(std::memory_order_relaxed) != 0 && news.exchange(0, std::memory_order_seq_cst) != 0;
  }
  // This vCPU stored to the page: the others that have to drop decoded code and be kicked, one bit each.
  u8 wrote(u64 page) { return map_.queue(page, static_cast<u8>(~bit_)); }

  bool pending() const { return map_.header_->vcpu[vcpu_].pending.load(std::memory_order_seq_cst) != 0; }
  // Calls drop(page) once for each page written since the last harvest.
  template <class Drop>
  void harvest(Drop&& drop) {
    map_.header_->vcpu[vcpu_].pending.exchange(0, std::memory_order_seq_cst);
    std::atomic<u64>* const dirty = map_.dirty(vcpu_);
    std::atomic<u64>* const summary = dirty + CodePages::words(map_.pages_);
    for (u64 s = 0; s < CodePages::words(CodePages::words(map_.pages_)); ++s) {
      if (summary[s].load(std::memory_order_acquire) == 0) continue;
      for (u64 hot = summary[s].exchange(0, std::memory_order_acq_rel); hot != 0; hot &= hot - 1) {
        const u64 word = s * 64 + static_cast<u64>(__builtin_ctzll(hot));
        if (word >= CodePages::words(map_.pages_)) break; // a peer's nonsense
        for (u64 bits = dirty[word].exchange(0, std::memory_order_acq_rel); bits != 0; bits &= bits - 1)
          drop(word * 64 + static_cast<u64>(__builtin_ctzll(bits)));
      }
    }
  }

 private:
  CodePages map_;
  u32 vcpu_;
  u8 bit_;
};

} // namespace transom
