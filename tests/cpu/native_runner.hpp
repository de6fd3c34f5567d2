// Runs a case on the host CPU: a trap's signal frame is filled with the case's state, and the next trap or fault is
// the outcome.
#pragma once

#include "tests/cpu/case.hpp"

namespace transom::cpu_test {

// The shadow memory of the sanitizers lies where cases expect nothing. There, the software CPU runs alone: for what the
// sanitizer has to say about it.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool SOFT_ONLY = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
inline constexpr bool SOFT_ONLY = true;
#else
inline constexpr bool SOFT_ONLY = false;
#endif
#else
inline constexpr bool SOFT_ONLY = false;
#endif

// Maps code and data at their fixed addresses and takes over SIGTRAP, SIGSEGV, SIGBUS, SIGILL, SIGFPE and SIGVTALRM:
// for a child process that does nothing else. False (with a reason): the host does not let us.
bool native_setup(std::string& reason);
bool native_has_bits16(); // the host kernel has modify_ldt(); sets up the segments
bool native_has_bits32(); // the host kernel has a 32-bit code segment

// Whether something else of this process is mapped at that address: a case that reaches it cannot be compared.
bool native_occupies(u64 address);

// Where this process exits to when the software CPU does not come back from a case.
inline constexpr int HANGS = 9;

void native_run(const Case& c, Outcome& outcome);

} // namespace transom::cpu_test
