// Whether the CPU takes denormal numbers for zeros, as operands and as results. Half precision is
// not concerned: it is converted by instructions that do not look at these flags.
#pragma once

#include <stdint.h>

namespace emulator {

#if defined(__x86_64__)

constexpr uint64_t FLUSH = 0x8000 | 0x0040;  // of MXCSR: results, operands

inline uint64_t float_state() { return __builtin_ia32_stmxcsr(); }
inline void set_float_state(uint64_t state) { __builtin_ia32_ldmxcsr(uint32_t(state)); }

#elif defined(__aarch64__)

constexpr uint64_t FLUSH = uint64_t(1) << 24;  // FZ of FPCR: both

inline uint64_t float_state() {
  uint64_t state;
  asm volatile("mrs %0, fpcr" : "=r"(state));
  return state;
}
inline void set_float_state(uint64_t state) { asm volatile("msr fpcr, %0" : : "r"(state)); }

#endif

// Returns the state to restore.
inline uint64_t set_denormals(bool flush) {
  const uint64_t before = float_state();
  set_float_state(flush ? before | FLUSH : before & ~FLUSH);
  return before;
}

inline void restore_denormals(uint64_t before) { set_float_state(before); }

}  // namespace emulator
