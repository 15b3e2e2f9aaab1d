// The envelope of the frames that a window was multiplied with, its inverse, and the verdict for the
// host.
//
// NumPy:  envelope(..., q, r, ...) == sum(padded[k * hop + r] ** 2 for k with 0 <= q - k < frames):
//         what the squares of the padded window add up to at sample r of hop q
// Limits: squares of complex values are complex, as torch.istft's are.
#pragma once

#include "window.h"

namespace spectro {

// torch.istft refuses envelopes below (NOLA_THRESHOLD of params.py).
inline float nola_threshold() { return 1e-11f; }
inline bool vanishes(float envelope) { return envelope < nola_threshold(); }
inline bool vanishes(float2 envelope) {
  const float threshold = nola_threshold();
  return fma(envelope.x, envelope.x, envelope.y * envelope.y) < threshold * threshold;
}

#ifndef __CUDACC__
inline float near_inverse(float x) { return 1.0f / x; }
inline float zero_from_here_on() { return 0.0f; }
#endif

// 1 / (factor * envelope), or 0 where the envelope vanishes. Rounded once: where an envelope is the
// same everywhere, so is its error.
inline float inverse(float envelope, float factor) {
  const float whole = envelope * factor;
  const float rest = fma(envelope, factor, -whole);
  const float near = near_inverse(whole);
  const float better = fma(fma(-near, whole, 1.0f) - near * rest, near, near);
  return vanishes(envelope) ? 0.0f : better == better ? better : near;  // squares may overflow
}
inline float2 inverse(float2 envelope, float factor) {
  if (vanishes(envelope)) return complex(0.0f, 0.0f);
  // By its larger part first: the squares of the others are in range.
  const float x = fabs(envelope.x), y = fabs(envelope.y), larger = x > y ? x : y;
  const float2 unit = complex(envelope.x / larger, envelope.y / larger);
  const float square = fma(unit.x, unit.x, unit.y * unit.y);
  return product(conjugate(unit), 1.0f / (square * larger * factor));
}

inline float plus_square(float sum, float value) { return fma(value, value, sum); }
inline float2 plus_square(float2 sum, float2 value) { return sum + product(value, value); }

template <class W, int LAYOUT>
inline W envelope(Window<W, LAYOUT> window, int q, int r, int hop, int n_fft, int frames) {
  W sum;
  set_zero(sum);
  int piece = q < frames ? 0 : q - frames + 1;
#pragma unroll 1
  for (int i = piece * hop + r; piece <= q && i < n_fft; i += hop, ++piece) {
    sum = plus_square(sum, window.at(uint(i)));
  }
  return sum;
}

// The verdict on an envelope, for the host. After FINE a launch writes no more. A kernel that does
// not know the whole call writes VANISHES or nothing. A null pointer, or NOBODY_ASKS: none is wanted.
enum Verdict { NOT_TOLD, VANISHES, FINE, NOBODY_ASKS };

inline void note(device atomic_uint* verdict) {
  if (verdict) atomic_store_explicit(verdict, uint(VANISHES), memory_order_relaxed);
}

#ifndef __CUDACC__
// Every launch of Metal's has memory for a verdict. CUDA's may lie in the host's memory, and is not
// read.
inline bool is_asked(const device atomic_uint* verdict) {
  return verdict && atomic_load_explicit(verdict, memory_order_relaxed) != uint(NOBODY_ASKS);
}
#endif

// Whether any thread of the group votes yes. All threads call it, and use `votes` for nothing else.
inline bool is_any(bool yes, threadgroup atomic_uint* votes, uint thread_index) {
  if (thread_index == 0) atomic_store_explicit(votes, 0u, memory_order_relaxed);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (yes) atomic_fetch_or_explicit(votes, 1u, memory_order_relaxed);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  const bool any = atomic_load_explicit(votes, memory_order_relaxed) != 0u;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  return any;
}

}  // namespace spectro
