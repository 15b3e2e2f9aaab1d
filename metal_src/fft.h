// Complex Fourier transforms of a whole frame: a few threads, one threadgroup buffer.
//
// NumPy:  Chain<P, 0>::run computes np.fft.fft(z), z being what the threads held in the order of
//         Pass<P, 0>: thread t, butterfly i, input r holds
//         z[t + P::THREADS * i + (P::POINTS / R) * r]. `finish` gets the results in registers, in
//         the order of the last pass: butterfly i, output r of thread t is element
//         Pass::output(t, i, r); stored, they lie in natural order.
// Grid:   P::THREADS threads per frame, neighbours in the group; all threads of a group must call.
// Limits: POINTS = R0 R1 R2 R3 R4 R5 with the radices of radix.h; P::FRAME_BYTES of threadgroup
//         memory per frame, so POINTS <= 4096 in 32 KiB, 8192 in halves.
//
// Self-sorting passes (Stockham, as in Govindaraju et al. 2008): pass p with span s = R0 ... R(p-1)
// takes inputs q + (POINTS / R) r for butterfly q, multiplies by exp(-2 pi i (q mod s) r / (s R)),
// and gives outputs (q / s) s R + q mod s + s r. The same buffer is read and written, with a
// barrier after each.
//
// A buffer is lines of 128 bytes, one for each bank. Between two passes elements are exchanged
// within their lines, so that threads that write R apart fall on different banks; what that adds to
// an address is either one number per butterfly or known to the compiler, never one per element.
// With HALF, real and imaginary parts are exchanged one after the other, in a buffer of half the size
// and with twice the barriers.
#pragma once

#include "complex.h"
#include "radix.h"

namespace spectro {

// Width in threads of what runs in lockstep (SIMD group, warp).
enum { SIMD_WIDTH = 32 };

enum { LINE_BYTES = 128 };

// Which parts of a point are stored or loaded.
enum Part { BOTH_PARTS, REAL_PART, IMAGINARY_PART };

constexpr int divided_up(int a, int b) { return (a + b - 1) / b; }

template <int POINTS_, int THREADS_, int R0, int R1, int R2, int R3, int R4, int R5,
          bool HALF_ = false>
struct Plan {
  enum {
    POINTS = POINTS_,
    THREADS = THREADS_,
    HALF = HALF_,
    POINT_BYTES = HALF_ ? 4 : 8,
    FRAME_BYTES = divided_up(POINTS_ * (HALF_ ? 4 : 8), LINE_BYTES) * LINE_BYTES,
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

// float2 elements of the buffers of so many frames.
template <class P> constexpr int exchange_elements(int frames) {
  return frames * int(P::FRAME_BYTES) / 8;
}

// Orders the threads of a frame: those of one SIMD group need no barrier of the whole group.
template <int THREADS> inline void frame_barrier() {
  if (SIMD_WIDTH % THREADS == 0) {
    simdgroup_barrier(mem_flags::mem_threadgroup);
  } else {
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
}

// The value at an offset of the buffers, in bytes from their beginning.
template <class T> inline threadgroup T& at_bytes(threadgroup float2* exchange, uint bytes) {
  return *(threadgroup T*)((threadgroup char*)exchange + bytes);
}
template <class T>
inline const threadgroup T& at_bytes(const threadgroup float2* exchange, uint bytes) {
  return *(const threadgroup T*)((const threadgroup char*)exchange + bytes);
}

template <int PART> inline void put(threadgroup float2* exchange, uint bytes, float2 value) {
  if (PART == BOTH_PARTS) {
    at_bytes<float2>(exchange, bytes) = value;
  } else {
    at_bytes<float>(exchange, bytes) = PART == REAL_PART ? value.x : value.y;
  }
}
template <int PART>
inline void get(const threadgroup float2* exchange, uint bytes, thread float2& value) {
  if (PART == BOTH_PARTS) {
    value = at_bytes<float2>(exchange, bytes);
  } else if (PART == REAL_PART) {
    value.x = at_bytes<float>(exchange, bytes);
  } else {
    value.y = at_bytes<float>(exchange, bytes);
  }
}

// Where the outputs of pass PASS lie until the next one has read them. PASS -1 stands for what is
// there before the first pass; that and what the last one leaves is in natural order.
template <class P, int PASS> struct Exchange {
  enum {
    LINE = LINE_BYTES / int(P::POINT_BYTES),
    SPAN = P::span(PASS),
    R = PASS < 0 ? 1 : P::radix(PASS),
    BLOCK = SPAN * R,
    // Otherwise neighbouring threads write neighbours, or odd radices spread them.
    SWIZZLED = PASS >= 0 && PASS + 1 < P::PASSES && is_power_of_two(SPAN) && is_power_of_two(R) &&
               SPAN < LINE,
    SHIFT = BLOCK > LINE ? log2_of(BLOCK) : log2_of(LINE),
    TURNS = !SWIZZLED ? 1 : BLOCK > LINE ? LINE / SPAN : R
  };

  static constexpr uint turn(uint i) {
    return SWIZZLED ? ((i >> int(SHIFT)) & uint(TURNS - 1)) * uint(SPAN) : 0u;
  }
  // Where element i is.
  static constexpr uint slot(uint i) { return i ^ turn(i); }

  // Whether slot(q + step r) == (slot(q) ^ turn(step r)) + step r for all q < step.
  static constexpr bool separates(int step) {
    return !SWIZZLED || (is_power_of_two(step) && step >= LINE) ||
           (step % (1 << int(SHIFT)) == 0 && (step >> int(SHIFT)) % int(TURNS) == 0);
  }
};

// `frame` is where a frame's buffer begins, in bytes; `twist`, less than a line and not zero only
// where pass 0 is swizzled, moves the elements of a whole frame within their lines.
template <class P, int PASS> struct Pass {
  typedef Exchange<P, PASS - 1> Before;
  typedef Exchange<P, PASS> After;
  enum {
    R = P::radix(PASS),
    SPAN = P::span(PASS),
    BUTTERFLIES = P::POINTS / P::radix(PASS),
    PER_THREAD = divided_up(P::POINTS / P::radix(PASS), P::THREADS),
    FACTORS = factors_of(P::radix(PASS)),
    BYTES = P::POINT_BYTES
  };

  static inline bool owns(uint t, int i) {
    return BUTTERFLIES % P::THREADS == 0 || t + P::THREADS * i < uint(BUTTERFLIES);
  }

  // Index in the frame of input r of butterfly i of thread t.
  static inline uint input(uint t, int i, int r) {
    return t + uint(P::THREADS * i + BUTTERFLIES * r);
  }

  // Index in the frame of output 0 of butterfly q; output r is SPAN * r behind.
  static inline uint first_output(uint q) {
    return q / uint(SPAN) * uint(SPAN * R) + q % uint(SPAN);
  }

  // Index in the frame of output r of butterfly i of thread t.
  static inline uint output(uint t, int i, int r) {
    return first_output(t + uint(P::THREADS * i)) + uint(SPAN * r);
  }

  template <int PART>
  static inline void load_butterfly(const threadgroup float2* exchange, uint frame, uint twist,
                                    uint q, thread float2 (&v)[R]) {
    const uint base = (frame + Before::slot(q) * uint(BYTES)) ^ twist;
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const uint step = uint(BUTTERFLIES * r);
      const uint place = Before::separates(BUTTERFLIES)
                             ? (base ^ (Before::turn(step) * uint(BYTES))) + step * uint(BYTES)
                             : (frame + Before::slot(q + step) * uint(BYTES)) ^ twist;
      get<PART>(exchange, place, v[r]);
    }
  }

  template <int PART>
  static inline void store_butterfly(threadgroup float2* exchange, uint frame, uint twist, uint q,
                                     const thread float2 (&v)[R]) {
    const uint base = (frame + After::slot(first_output(q)) * uint(BYTES)) ^ twist;
#pragma unroll
    for (int r = 0; r < R; ++r) {
      // Output 0 has zeros where the outputs of its butterfly count, so that adding is XOR, which
      // commutes with being swizzled.
      const uint within = After::SWIZZLED ? uint(SPAN * r) % uint(After::LINE) : 0u;
      const uint place = (base ^ (within * uint(BYTES))) + (uint(SPAN * r) - within) * uint(BYTES);
      put<PART>(exchange, place, v[r]);
    }
  }

  template <int PART>
  static inline void load(const threadgroup float2* exchange, uint frame, uint twist, uint t,
                          thread float2 (&v)[PER_THREAD][R]) {
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i) {
      if (owns(t, i)) {
        load_butterfly<PART>(exchange, frame, twist, t + uint(P::THREADS * i), v[i]);
      }
    }
  }

  template <int PART>
  static inline void store(threadgroup float2* exchange, uint frame, uint t,
                           const thread float2 (&v)[PER_THREAD][R]) {
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i) {
      if (owns(t, i)) {
        store_butterfly<PART>(exchange, frame, 0u, t + uint(P::THREADS * i), v[i]);
      }
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
};

// Everything after the butterflies of pass PASS, whose results the threads hold in v.
template <class P, int PASS, bool LAST = PASS + 1 == P::PASSES> struct Chain {
  typedef Pass<P, PASS> This;
  typedef Pass<P, PASS + 1> Next;

  template <class Finish>
  static inline void run(threadgroup float2* exchange, uint frame, const device float2* table,
                         uint t, const thread float2 (&v)[This::PER_THREAD][This::R],
                         const thread Finish& finish) {
    float2 next[Next::PER_THREAD][Next::R];
    pass_on<P::HALF ? REAL_PART : BOTH_PARTS>(exchange, frame, t, v, next);
    if (P::HALF) pass_on<IMAGINARY_PART>(exchange, frame, t, v, next);
    go_on(exchange, frame, table, t, next, finish);
  }

  // The same, where the results of this pass are already in the next one's hands.
  template <class Finish>
  static inline void go_on(threadgroup float2* exchange, uint frame, const device float2* table,
                           uint t, thread float2 (&next)[Next::PER_THREAD][Next::R],
                           const thread Finish& finish) {
    Next::transform(table, t, next);
    Chain<P, PASS + 1>::run(exchange, frame, table, t, next, finish);
  }

  template <int PART>
  static inline void pass_on(threadgroup float2* exchange, uint frame, uint t,
                             const thread float2 (&v)[This::PER_THREAD][This::R],
                             thread float2 (&next)[Next::PER_THREAD][Next::R]) {
    This::template store<PART>(exchange, frame, t, v);
    frame_barrier<P::THREADS>();
    Next::template load<PART>(exchange, frame, 0u, t, next);
    frame_barrier<P::THREADS>();
  }
};

template <class P, int PASS> struct Chain<P, PASS, true> {
  typedef Pass<P, PASS> This;

  template <class Finish>
  static inline void run(threadgroup float2* exchange, uint frame, const device float2*, uint t,
                         const thread float2 (&v)[This::PER_THREAD][This::R],
                         const thread Finish& finish) {
    finish.template take<P, This>(exchange, frame, t, v);
  }
};

}  // namespace spectro
