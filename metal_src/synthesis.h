// The synthesis map: bins -> inverse Fourier transform -> window -> overlap-add -> divided by the
// envelope -> trimmed signal. One group makes a tile of output samples; its sums stay in registers.
//
// NumPy:  y = np.fft.irfft(X, n_fft) * window          (or np.fft.ifft for complex signals)
//         padded[m*hop : m*hop + n_fft] += y[m]
//         out[t] = padded[t + start] / (scale * envelope[t + start])   for t < kept, else 0
//         with bins 0 and n_fft / 2 multiplied by `edge`, and their imaginary parts ignored where
//         the signal is real. Transforms do not divide by n_fft: scale does. vanishing[0] becomes
//         VANISHES where the envelope vanishes at a kept sample. Without ENVELOPE, scale multiplies in the
//         place of the division; with FOLD, out is the transpose of padding: each sample also
//         receives the padded positions that repeat it.
// Grid:   x: ceil(length / (FRAMES * P::THREADS * SAMPLES)) groups of FRAMES * P::THREADS threads;
//         y: rows.
// Input:  (rows, frames, bins) of any strides; FRAMES_FASTEST: neighbouring frames are neighbours
//         in memory, and neighbouring threads read them.
// Limits: as analysis.h; frames < 2^31 - n_fft.
#pragma once

#include "fft.h"
#include "overlap_add.h"
#include "signal.h"
#include "envelope.h"

namespace spectro {

// The launch's integers, in this order; the scale is the bits of a float. The last five are for
// synthesis_walk.h: the samples that its runs make, hops of a run, groups for either end, and a zero.
enum SynthesisParameter {
  SYNTHESIS_FRAMES,
  SYNTHESIS_HOP,
  SYNTHESIS_N_FFT,
  SYNTHESIS_BINS,
  SYNTHESIS_START,
  SYNTHESIS_KEPT,
  SYNTHESIS_LENGTH,
  SYNTHESIS_SCALE,
  SYNTHESIS_WINDOW_STEP,
  SYNTHESIS_WINDOW_LEFT,
  SYNTHESIS_WINDOW_LENGTH,
  SYNTHESIS_SPLIT_TABLE,
  SYNTHESIS_PADDING,
  SYNTHESIS_PAD_MODE,
  SYNTHESIS_BEGIN,
  SYNTHESIS_END,
  SYNTHESIS_RUN,
  SYNTHESIS_END_GROUPS,
  SYNTHESIS_ZERO,
  SYNTHESIS_PARAMETERS
};

// The bins of one frame. BOTH_HALVES: a two-sided spectrum whose upper half counts too, as the
// real part of the inverse transform has it.
template <bool BOTH_HALVES> struct Bins {
  const device float2* first;
  long step;
  int n_fft;
  float edge;

  inline float2 at(uint k) const { return first[long(k) * step]; }

  // Bin k <= n_fft / 2 of the half spectrum of a real signal.
  inline float2 of_real(uint k) const {
    float2 value = at(k);
    bool is_edge = k == 0 || 2 * int(k) == n_fft;
    if (BOTH_HALVES && !is_edge) value = value + conjugate(at(uint(n_fft) - k));
    return is_edge ? complex(value.x * edge, 0.0f) : value;
  }
};

// Real signals of even length: see analysis.h. Points are stored with their parts exchanged, so
// that the forward transform inverts.
struct PackedReal {
  typedef float Sample;

  template <class P, class B>
  static inline void load(const thread B& bins, const device float2* split, uint t, bool active,
                          threadgroup float2* z) {
    const uint points = P::POINTS;
    for (uint k = t; k <= points / 2; k += P::THREADS) {
      float2 low = complex(0.0f, 0.0f), high = low;
      if (active) {
        float2 a = bins.of_real(k), b = conjugate(bins.of_real(points - k));
        combine(a + b, a - b, conjugate(split[k]), low, high);
      }
      z[k] = exchanged(low);
      if (k > 0 && points - k != k) z[points - k] = exchanged(conjugate(high));
    }
  }

  template <class Weights>
  static inline float2 windowed(float2 value, Weights window, uint j) {
    const float2 w = window.pair(j);
    return complex(value.y * w.x, value.x * w.y);
  }

  static inline float sample(const threadgroup float2* z, int i) {
    return ((const threadgroup float*)z)[i];
  }
};

// Real signals of any length: the half spectrum is completed to a whole one.
struct DirectReal {
  typedef float Sample;

  template <class P, class B>
  static inline void load(const thread B& bins, const device float2*, uint t, bool active,
                          threadgroup float2* z) {
    const uint points = P::POINTS;
    for (uint k = t; k <= points / 2; k += P::THREADS) {
      float2 value = active ? bins.of_real(k) : complex(0.0f, 0.0f);
      z[k] = exchanged(value);
      if (k > 0 && points - k != k) z[points - k] = exchanged(conjugate(value));
    }
  }

  template <class Weights>
  static inline float2 windowed(float2 value, Weights window, uint j) {
    return complex(value.y * window.at(j), 0.0f);
  }

  static inline float sample(const threadgroup float2* z, int i) { return z[i].x; }
};

// Complex signals.
struct DirectComplex {
  typedef float2 Sample;

  template <class P, class B>
  static inline void load(const thread B& bins, const device float2*, uint t, bool active,
                          threadgroup float2* z) {
    for (uint k = t; k < uint(P::POINTS); k += P::THREADS) {
      float2 value = active ? bins.at(k) : complex(0.0f, 0.0f);
      bool is_edge = k == 0 || 2 * k == uint(P::POINTS);
      z[k] = exchanged(is_edge ? product(value, bins.edge) : value);
    }
  }

  template <class Weights>
  static inline float2 windowed(float2 value, Weights window, uint j) {
    return product(exchanged(value), window.at(j));
  }

  static inline float2 sample(const threadgroup float2* z, int i) { return z[i]; }
};

// Multiplies a frame's samples by the window and stores them in its buffer, in order.
template <class Packing, class Weights> struct Windowed {
  Weights window;

  template <class P, class LAST>
  inline void take(threadgroup float2* exchange, uint frame, uint t,
                   const thread float2 (&v)[LAST::PER_THREAD][LAST::R]) const {
#pragma unroll
    for (int i = 0; i < LAST::PER_THREAD; ++i) {
      if (!LAST::owns(t, i)) continue;
#pragma unroll
      for (int r = 0; r < LAST::R; ++r) {
        const uint j = LAST::output(t, i, r);
        at_bytes<float2>(exchange, frame + j * uint(LAST::BYTES)) =
            Packing::windowed(v[i][r], window, j);
      }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
};

// The frames of one round, in threadgroup memory.
template <class P, class Packing> struct RoundFrames {
  const threadgroup float2* exchange;
  int first;

  inline typename Packing::Sample at(int m, int i) const {
    return Packing::sample(&at_bytes<float2>(exchange, uint(m - first) * uint(P::FRAME_BYTES)), i);
  }
};

// What all threads of a group know. Weights: a Window.
template <class P, class Packing, bool FRAMES_FASTEST, bool BOTH_HALVES, int FRAMES, int SAMPLES,
          class Weights>
struct Synthesis {
  typedef typename Packing::Sample Sample;
  typedef Bins<BOTH_HALVES> FrameBins;
  // So few frames of a round are tried one by one; of more, the covering ones are looked up.
  enum { GROUP = FRAMES * P::THREADS, FEW_FRAMES = 8 };

  const device float2* spectrum;  // of this row
  long frame_step, bin_step;
  Weights window;
  const device float2* table;
  const device float2* split;
  threadgroup float2* exchange;
  uint thread_index;
  int frames, hop, n_fft;
  int zero;
  float edge;

  inline Synthesis(const thread Weights& of_window) : window(of_window) {}

  // Inverse transforms of frames first ... first + FRAMES - 1, windowed, in `exchange`.
  inline void transform(int first, int last) const {
    // Plus a zero that the compiler does not know of: addresses are computed anew in every round,
    // as together they would take more registers than there are.
    const uint index = thread_index + uint(first * zero);
    const uint loader = FRAMES_FASTEST ? index / FRAMES : index % uint(P::THREADS);
    const uint loaded = FRAMES_FASTEST ? index % FRAMES : index / uint(P::THREADS);
    const bool active = first + int(loaded) <= last;
    FrameBins bins;
    bins.first = spectrum + (active ? long(first) + loaded : 0) * frame_step;
    bins.step = bin_step;
    bins.n_fft = n_fft;
    bins.edge = edge;
    Packing::template load<P>(bins, split, loader, active,
                              &at_bytes<float2>(exchange, loaded * uint(P::FRAME_BYTES)));
    if (FRAMES_FASTEST) {
      threadgroup_barrier(mem_flags::mem_threadgroup);
    } else {
      frame_barrier<P::THREADS>();
    }

    typedef Pass<P, 0> First;
    const uint t = index % uint(P::THREADS), f = index / uint(P::THREADS);
    const uint frame = f * uint(P::FRAME_BYTES);
    float2 v[First::PER_THREAD][First::R];
    First::template load<BOTH_PARTS>(exchange, frame, 0u, t, v);
    frame_barrier<P::THREADS>();
    First::transform(table, t, v);
    const Windowed<Packing, Weights> finish = {window};
    Chain<P, 0>::run(exchange, frame, table, t, v, finish);
  }

  // Adds to sum[j] the frames over padded position first + direction * (thread + GROUP * j); if
  // MASKED, only where it lies in [from, to). All threads of the group pass the same positions.
  template <bool MASKED>
  inline void add(long first, int direction, long from, long to,
                  thread Sample (&sum)[SAMPLES]) const {
    const long end = first + direction * long(GROUP * SAMPLES - 1);
    const long lowest = direction > 0 ? first : end, highest = direction > 0 ? end : first;
    const long lower = lowest > from ? lowest : from;
    const long upper = highest < to - 1 ? highest : to - 1;
    if (lower > upper) return;
    const Covering covering(lower, upper, n_fft, hop, frames);
    for (int round = covering.low; round <= covering.high; round += FRAMES) {
      const int last = round + FRAMES - 1 < covering.high ? round + FRAMES - 1 : covering.high;
      transform(round, last);
      // Of thread 0's sample 0: its index in frame `round`, and the range of the mask.
      const long begin = long(round) * hop;
      add_round<MASKED>(int(first - begin), direction, round, last, from - begin, to - begin, sum);
      threadgroup_barrier(mem_flags::mem_threadgroup);
    }
  }

  // The same for the frames of one round; positions count from the first of them.
  template <bool MASKED>
  inline void add_round(int first, int direction, int round, int last, long from, long to,
                        thread Sample (&sum)[SAMPLES]) const {
    RoundFrames<P, Packing> made;
    made.exchange = exchange;
    made.first = round;
    const int reach = (last - round) * hop + n_fft;
#pragma unroll
    for (int j = 0; j < SAMPLES; ++j) {
      const int zeroth = first + direction * GROUP * j;
      const int lowest = direction > 0 ? zeroth : zeroth - (GROUP - 1);
      // The whole group's samples lie beside these frames.
      if (lowest + GROUP <= 0 || lowest >= reach) continue;
      const int i = zeroth + direction * int(thread_index);
      if (MASKED && (i < from || i >= to)) continue;
      if (FRAMES > FEW_FRAMES) {
        gather(made, i, round, last, hop, n_fft, sum[j]);
        continue;
      }
#pragma unroll
      for (int f = FRAMES - 1; f >= 0; --f) {
        const int of_frame = i - f * hop;
        if (round + f <= last && uint(of_frame) < uint(n_fft)) {
          sum[j] += made.at(round + f, of_frame);
        }
      }
    }
  }

  // The sum over all padded positions in [from, to), in every thread.
  inline Sample total(long from, long to) const {
    Sample sum[SAMPLES], all;
    set_zeros(sum);
    for (long first = from; first < to; first += GROUP * SAMPLES) {
      add<true>(first, 1, from, to, sum);
    }
    set_zero(all);
#pragma unroll
    for (int j = 0; j < SAMPLES; ++j) all += sum[j];
    threadgroup Sample* sums = (threadgroup Sample*)exchange;
    sums[thread_index] = all;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    set_zero(all);
    for (int other = 0; other < GROUP; ++other) all += sums[other];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return all;
  }

  // Adds what padding's transpose brings to output samples t0 + thread + GROUP * j.
  inline void fold(long t0, Padding padding, thread Sample (&sum)[SAMPLES]) const {
    for (int side = 0; side < 2; ++side) {
      if (padding.mode == PAD_REFLECT || padding.mode == PAD_CIRCULAR) {
        const RepeatedPositions repeated(padding, side);
        add<true>(repeated.of(t0), repeated.direction, repeated.from, repeated.to, sum);
      } else if (padding.mode == PAD_REPLICATE) {
        const long repeated = (side == 0 ? 0 : padding.samples - 1) - t0;
        if (repeated < 0 || repeated >= GROUP * SAMPLES) continue;
        const RepeatedPositions all(padding, side);
        const Sample extra = total(all.from, all.to);
#pragma unroll
        for (int j = 0; j < SAMPLES; ++j) {
          if (long(thread_index) + GROUP * j == repeated) sum[j] += extra;
        }
      }
    }
  }

  static inline void set_zeros(thread Sample (&sum)[SAMPLES]) {
#pragma unroll
    for (int j = 0; j < SAMPLES; ++j) set_zero(sum[j]);
  }
};

// One group's share: output samples t0 ... end - 1, as far as its threads have sums for them. `S` is
// a Synthesis, whose `exchange` has exchange_elements<P>(FRAMES).
template <class S, bool ENVELOPE, bool FOLD, int SAMPLES>
inline void synthesis(thread S& work, const device long* parameters,
                      device typename S::Sample* signal, device atomic_uint* vanishing, long t0,
                      long end, uint row) {
  typedef typename S::Sample Sample;
  const long start = parameters[SYNTHESIS_START], kept = parameters[SYNTHESIS_KEPT];
  const long length = parameters[SYNTHESIS_LENGTH];

  Sample sum[SAMPLES];
  S::set_zeros(sum);
  work.template add<false>(t0 + start, 1, start, start + kept, sum);
  if (FOLD) {
    Padding padding;
    padding.samples = length;
    padding.padding = parameters[SYNTHESIS_PADDING];
    padding.mode = int(parameters[SYNTHESIS_PAD_MODE]);
    work.fold(t0, padding, sum);
  }

  HopPosition p(t0 + start + long(work.thread_index), work.hop);
  const HopPosition step(S::GROUP, work.hop);
  const float scale = as_type<float>(int(parameters[SYNTHESIS_SCALE]));
  device Sample* out = signal + long(row) * length;
#pragma unroll
  for (int j = 0; j < SAMPLES; ++j) {
    const long t = t0 + long(work.thread_index) + S::GROUP * j;
    if (t < end) {
      if (!ENVELOPE) {
        sum[j] = product(sum[j], scale);
      } else if (t < kept) {
        const auto squares = envelope(work.window, p.q, p.r, work.hop, work.n_fft, work.frames);
        if (vanishes(squares)) note(vanishing);
        sum[j] = product(sum[j], inverse(squares, scale));
      }
      out[t] = sum[j];
    }
    p.advance(step, work.hop);
  }
}

// The packing by flags, which MLX passes to a kernel.
template <bool PACKED, bool COMPLEX> struct SynthesisPacking { typedef DirectReal Type; };
template <> struct SynthesisPacking<true, false> { typedef PackedReal Type; };
template <> struct SynthesisPacking<false, true> { typedef DirectComplex Type; };

}  // namespace spectro
