// Complex Fourier transforms of a whole frame: a few threads, one threadgroup buffer.
//
// NumPy:  Chain<P, 0>::run computes np.fft.fft(z), z being what the threads held in the order of
//         Pass<P, 0>: thread t, butterfly i, input r holds
//         z[t + P::THREADS * i + (P::POINTS / R) * r]. `finish` gets the results in registers, in
//         the order of the last pass: butterfly i, output r of thread t is element
//         Pass::output(t, i, r). IntoBuffer stores them: element slot(k) of the buffer is bin k.
// Grid:   P::THREADS threads per frame, neighbours in the group; all threads of a group must call.
// Limits: POINTS = R0 R1 R2 R3 R4 R5 with the radices of radix.h; slots_of(POINTS) float2 of
//         threadgroup memory per frame, so POINTS <= 4096 in 32 KiB.
//
// Self-sorting passes (Stockham, as in Govindaraju et al. 2008): pass p with span s = R0 ... R(p-1)
// takes inputs q + (POINTS / R) r for butterfly q, multiplies by exp(-2 pi i (q mod s) r / (s R)),
// and gives outputs (q / s) s R + q mod s + s r. The same buffer is read and written, with a
// barrier after each.
#pragma once

#include "complex.h"
#include "radix.h"

namespace spectro {

// Width in threads of what runs in lockstep (SIMD group, warp).
enum { SIMD_WIDTH = 32 };

// Where element i of a buffer lives: exchanged within lines of 16 float2 (128 bytes), so that
// threads that write R apart fall on different banks.
inline uint slot(uint i) { return i ^ ((i >> 4) & 15u); }

// float2 elements that a buffer of n elements needs: whole lines.
constexpr int slots_of(int n) { return (n + 15) / 16 * 16; }

constexpr int divided_up(int a, int b) { return (a + b - 1) / b; }

template <int POINTS_, int THREADS_, int R0, int R1, int R2, int R3, int R4, int R5> struct Plan {
  enum {
    POINTS = POINTS_,
    THREADS = THREADS_,
    SLOTS = slots_of(POINTS_),
    PASSES = R5 > 1 ? 6 : R4 > 1 ? 5 : R3 > 1 ? 4 : R2 > 1 ? 3 : R1 > 1 ? 2 : 1
  };
  static_assert(R0 * R1 * R2 * R3 * R4 * R5 == POINTS_, "the radices multiply to the points");

  static constexpr int radix(int pass) {
    return pass == 0   ? R0
           : pass == 1 ? R1
           : pass == 2 ? R2
           : pass == 3 ? R3
           : pass == 4 ? R4
                       : R5;
  }
  static constexpr int span(int pass) {
    int product = 1;
    for (int p = 0; p < pass; ++p) product *= radix(p);
    return product;
  }
  // Pass p > 0 reads its factors from here on in the table: span(p) of each power.
  static constexpr int table_offset(int pass) {
    int offset = 0;
    for (int p = 1; p < pass; ++p) offset += factors_of(radix(p)) * span(p);
    return offset;
  }
};

// Orders the threads of a frame: those of one SIMD group need no barrier of the whole group.
template <int THREADS> inline void frame_barrier() {
  if (SIMD_WIDTH % THREADS == 0) {
    simdgroup_barrier(mem_flags::mem_threadgroup);
  } else {
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
}

template <class P, int PASS> struct Pass {
  enum {
    R = P::radix(PASS),
    SPAN = P::span(PASS),
    BUTTERFLIES = P::POINTS / P::radix(PASS),
    PER_THREAD = divided_up(P::POINTS / P::radix(PASS), P::THREADS),
    FACTORS = factors_of(P::radix(PASS))
  };

  static inline bool owns(uint t, int i) {
    return BUTTERFLIES % P::THREADS == 0 || t + P::THREADS * i < uint(BUTTERFLIES);
  }

  // Index in the frame of input r of butterfly i of thread t.
  static inline uint input(uint t, int i, int r) {
    return t + uint(P::THREADS * i + BUTTERFLIES * r);
  }

  static inline void load(const threadgroup float2* frame, uint t,
                          thread float2 (&v)[PER_THREAD][R]) {
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i) {
      if (!owns(t, i)) continue;
#pragma unroll
      for (int r = 0; r < R; ++r) v[i][r] = frame[slot(input(t, i, r))];
    }
  }

  static inline void store(threadgroup float2* frame, uint t,
                           const thread float2 (&v)[PER_THREAD][R]) {
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i) {
      if (!owns(t, i)) continue;
#pragma unroll
      for (int r = 0; r < R; ++r) frame[slot(output(t, i, r))] = v[i][r];
    }
  }

  static inline void transform(const device float2* table, uint t,
                               thread float2 (&v)[PER_THREAD][R]) {
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i) {
      if (!owns(t, i)) continue;
      if (PASS == 0) {
        Radix<R>::transform(v[i]);
      } else {
        const device float2* factors =
            table + P::table_offset(PASS) + (t + uint(P::THREADS * i)) % uint(SPAN);
        float2 w[FACTORS > 0 ? FACTORS : 1];
#pragma unroll
        for (int power = 0; power < FACTORS; ++power) w[power] = factors[SPAN * power];
        Radix<R>::transform(v[i], w);
      }
    }
  }

  // Index in the frame of output r of butterfly i of thread t.
  static inline uint output(uint t, int i, int r) {
    uint q = t + uint(P::THREADS * i);
    return q / uint(SPAN) * uint(SPAN * R) + q % uint(SPAN) + uint(SPAN * r);
  }
};

// What becomes of a frame's bins: they go into its buffer.
struct IntoBuffer {
  template <class LAST, int THREADS>
  inline void take(threadgroup float2* frame, uint t,
                   const thread float2 (&v)[LAST::PER_THREAD][LAST::R]) const {
    LAST::store(frame, t, v);
    frame_barrier<THREADS>();
  }
};

// Everything after the butterflies of pass PASS, whose results the threads hold in v.
template <class P, int PASS, bool LAST = PASS + 1 == P::PASSES> struct Chain {
  typedef Pass<P, PASS> This;
  typedef Pass<P, PASS + 1> Next;

  template <class Finish>
  static inline void run(threadgroup float2* frame, const device float2* table, uint t,
                         const thread float2 (&v)[This::PER_THREAD][This::R],
                         const thread Finish& finish) {
    This::store(frame, t, v);
    frame_barrier<P::THREADS>();
    float2 next[Next::PER_THREAD][Next::R];
    Next::load(frame, t, next);
    frame_barrier<P::THREADS>();
    Next::transform(table, t, next);
    Chain<P, PASS + 1>::run(frame, table, t, next, finish);
  }
};

template <class P, int PASS> struct Chain<P, PASS, true> {
  typedef Pass<P, PASS> This;

  template <class Finish>
  static inline void run(threadgroup float2* frame, const device float2*, uint t,
                         const thread float2 (&v)[This::PER_THREAD][This::R],
                         const thread Finish& finish) {
    finish.template take<This, P::THREADS>(frame, t, v);
  }
};

}  // namespace spectro
