// From a half spectrum to the first pass of its inverse transform, in registers alone.
//
// NumPy:  with M = P::POINTS, f = exp(2j pi k / (2 M)) and X = spectrum,
//         z[k] = (X[k] + conj(X[M - k])) + 1j f (X[k] - conj(X[M - k])), its parts exchanged, is
//         what synthesis.h transforms for a packed real signal. Thread t computes butterflies t and
//         partner(t) of pass 0 on it: their inputs are exactly the mirrored pairs (k, M - k) that
//         one load of X[k] and X[M - k] gives, so that nothing is exchanged before that pass.
// Grid:   P::THREADS threads per frame, of which the first PAIRS have work. No barriers.
// Limits: P::radix(0) and P::POINTS / P::radix(0) are even; PAIRS <= P::THREADS.
#pragma once

#include "fft.h"

namespace spectro {

#ifndef __CUDACC__
inline void will_read(const device void*) {}  // Metal has no such hint
#endif

template <class P> struct Mirrored {
  typedef Pass<P, 0> First;
  enum {
    R = First::R,
    HALF = R / 2,
    BUTTERFLIES = First::BUTTERFLIES,
    PAIRS = BUTTERFLIES / 2,
    POINTS = P::POINTS
  };
  static_assert(R % 2 == 0 && BUTTERFLIES % 2 == 0, "butterflies are mirrored in pairs");
  static_assert(PAIRS <= int(P::THREADS), "one pair of butterflies for each thread");

  // Bins k and M - k of `set` 0 for k = t + BUTTERFLIES r, of `set` 1 for k = partner(t) +
  // BUTTERFLIES r, r < R / 2; thread 0 has bin M / 2 besides.
  float2 low[2][HALF];
  float2 high[2][HALF];
  float2 middle;

  static inline bool owns(uint t) { return PAIRS == int(P::THREADS) || t < uint(PAIRS); }

  // Butterfly 0 and butterfly BUTTERFLIES / 2 are mirrored in themselves: thread 0 has both.
  static inline uint partner(uint t) { return t == 0 ? uint(PAIRS) : uint(BUTTERFLIES) - t; }

  inline void clear() {
#pragma unroll
    for (int set = 0; set < 2; ++set) {
#pragma unroll
      for (int r = 0; r < HALF; ++r) {
        low[set][r] = complex(0.0f, 0.0f);
        high[set][r] = complex(0.0f, 0.0f);
      }
    }
    middle = complex(0.0f, 0.0f);
  }

  // `bins` is a frame's bin 0, `step` from one bin to the next. Addresses move by additions.
  template <class Visitor>
  static inline void visit(const device float2* bins, long step, uint t, Visitor visitor) {
    const long stride = step * BUTTERFLIES;
#pragma unroll
    for (int set = 0; set < 2; ++set) {
      const uint k = set == 0 ? t : partner(t);
      const device float2* up = bins + long(k) * step;
      const device float2* down = bins + long(uint(POINTS) - k) * step;
#pragma unroll
      for (int r = 0; r < HALF; ++r) {
        visitor.at(set, r, up, down);
        up += stride;
        down -= stride;
      }
    }
  }

  struct Reader {
    thread Mirrored* pairs;
    inline void at(int set, int r, const device float2* up, const device float2* down) const {
      pairs->low[set][r] = *up;
      pairs->high[set][r] = *down;
    }
  };

  static inline void read(const device float2* bins, long step, uint t, thread Mirrored& pairs) {
    const Reader reader = {&pairs};
    visit(bins, step, t, reader);
    pairs.middle = t == 0 ? bins[step * (POINTS / 2)] : complex(0.0f, 0.0f);
  }

  struct Asker {
    inline void at(int, int, const device float2* up, const device float2* down) const {
      will_read(up);
      will_read(down);
    }
  };

  // Prefetches what `read` will read; it does nothing where there is no such hint.
  static inline void ask(const device float2* bins, long step, uint t) {
    visit(bins, step, t, Asker());
  }

  // DC and Nyquist are real, and weighted.
  inline void weigh_edges(uint t, float edge) {
    if (t == 0) {
      low[0][0] = complex(low[0][0].x * edge, 0.0f);
      high[0][0] = complex(high[0][0].x * edge, 0.0f);
    }
  }

  // Bins become points.
  inline void pack(const device float2* split, uint t) {
#pragma unroll
    for (int set = 0; set < 2; ++set) {
      const device float2* factors = split + (set == 0 ? t : partner(t));
#pragma unroll
      for (int r = 0; r < HALF; ++r) {
        const float2 a = low[set][r], b = conjugate(high[set][r]);
        float2 u, v;
        combine(a + b, a - b, conjugate(factors[BUTTERFLIES * r]), u, v);
        low[set][r] = exchanged(u);
        high[set][r] = exchanged(conjugate(v));
      }
    }
    middle = complex(-2.0f * middle.y, 2.0f * middle.x);
  }

  // The inputs of butterflies t and partner(t). M - (t + BUTTERFLIES r) is input R - 1 - r of
  // butterfly BUTTERFLIES - t; with t = 0 it is input R - r of butterfly 0.
  inline void arrange(uint t, thread float2 (&a)[R], thread float2 (&b)[R]) const {
    const bool zeroth = t == 0;
#pragma unroll
    for (int r = 0; r < HALF; ++r) {
      a[r] = low[0][r];
      b[r] = low[1][r];
      const float2 mirror = r == 0 ? middle : high[0][r == 0 ? 0 : HALF - r];
      const float2 of_a = high[1][HALF - 1 - r], of_b = high[0][HALF - 1 - r];
      a[HALF + r] = zeroth ? mirror : of_a;
      b[HALF + r] = zeroth ? of_a : of_b;
    }
  }

  // Results of pass 0 for a frame at `frame`, in the hands of those that do pass 1. `t` and `frame`
  // are of the thread as it does pass 0, `next_t` and `next_frame` as it does the others, which
  // may be another frame's: then ACROSS, and the whole group waits.
  template <int PART, bool ACROSS, class Next>
  static inline void pass_on(threadgroup float2* exchange, uint frame, uint twist, uint t,
                             uint next_frame, uint next_twist, uint next_t,
                             const thread float2 (&a)[R], const thread float2 (&b)[R],
                             thread float2 (&next)[Next::PER_THREAD][Next::R]) {
    if (owns(t)) {
      First::template store_butterfly<PART>(exchange, frame, twist, t, a);
      First::template store_butterfly<PART>(exchange, frame, twist, partner(t), b);
    }
    if (ACROSS) {
      threadgroup_barrier(mem_flags::mem_threadgroup);
    } else {
      frame_barrier<P::THREADS>();
    }
    Next::template load<PART>(exchange, next_frame, next_twist, next_t, next);
    // The parts of another frame may be stored where this thread still reads.
    if (ACROSS && P::HALF && PART == REAL_PART) {
      threadgroup_barrier(mem_flags::mem_threadgroup);
    } else {
      frame_barrier<P::THREADS>();
    }
  }
};

}  // namespace spectro
