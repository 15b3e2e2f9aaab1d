// The analysis map: signal -> padded frames -> window -> Fourier transform -> bins.
//
// NumPy:  frames = sliding_window_view(np.pad(x[row], padding, mode), n_fft)[::hop][:frames]
//         spectrum[row] = np.fft.fft(frames * window)[:, :bins] * (scale if SCALED else 1)
//         with bins 0 and n_fft / 2 multiplied by `edge`, too.
// Grid:   x: ceil(frames / FRAMES) groups of FRAMES * P::THREADS threads; y: rows.
// Output: (rows, frames, bins), dense; FRAMES_FASTEST: (rows, bins, frames), where neighbouring
//         threads write neighbouring frames.
// Limits: P::POINTS is n_fft / 2 (packed: n_fft even, signal and window real) or n_fft (direct);
//         n_fft <= 8192 packed, 4096 direct. hop, strides and lengths are run-time, 64 bits.
//
// As the adjoint of synthesis: ENVELOPE (the signal is divided first, by `scale` times the envelope of
// the frames that there are; then HOP is the hop, which otherwise is not compiled for), constant
// padding, edge one half and half the scale (the other bins of a real spectrum stand for two each).
#pragma once

#include "fft.h"
#include "overlap_add.h"
#include "signal.h"
#include "envelope.h"

namespace spectro {

// The launch's integers, in this order; the scale is the bits of a float.
enum AnalysisParameter {
  ANALYSIS_SAMPLES,
  ANALYSIS_FRAMES,
  ANALYSIS_HOP,
  ANALYSIS_PADDING,
  ANALYSIS_PAD_MODE,
  ANALYSIS_N_FFT,
  ANALYSIS_BINS,
  ANALYSIS_SPLIT_TABLE,
  ANALYSIS_SCALE,
  ANALYSIS_WINDOW_STEP,
  ANALYSIS_WINDOW_LEFT,
  ANALYSIS_WINDOW_LENGTH,
  ANALYSIS_PARAMETERS
};

// Real samples 2 j and 2 j + 1 are the parts of point j; a transform of n_fft / 2 points.
struct Packed {
  template <class F, class Weights>
  static inline float2 point(const thread F& frame, const thread Weights& window, uint j) {
    return by_parts(frame.pair(j), window.pair(j));
  }

  // The window's values for point j, and the point by those.
  template <class Weights>
  static inline float2 weight(const thread Weights& window, uint j) {
    return window.pair(j);
  }
  template <class F> static inline float2 weighed(const thread F& frame, float2 weight, uint j) {
    return by_parts(frame.pair(j), weight);
  }

  // A weight divided by `scale` times an envelope, whose squares are added.
  static inline float2 plus_square(float2 sum, float2 weight) {
    return multiplied_added(weight, weight, sum);
  }
  static inline float2 divided(float2 weight, float2 squares, float scale) {
    return complex(weight.x * inverse(squares.x, scale),
                   weight.y * inverse(squares.y, scale));
  }

  // With A = z[k] + conj(z[M - k]), D = z[k] - conj(z[M - k]) and f = -i exp(-2 pi i k / n_fft):
  // X[k] = (A + f D) / 2 and X[M - k] = conj(A - f D) / 2. Thread t has k = t + THREADS c.
  template <class P> struct Bins {
    enum {
      POINTS = P::POINTS,
      THREADS = P::THREADS,
      PAIRS = divided_up(P::POINTS, 2),
      EACH = divided_up(PAIRS, P::THREADS),
      BYTES = P::POINT_BYTES,
      SAMPLES = 2 * int(P::POINTS)
    };

    static inline bool owns(uint t, int c) {
      return PAIRS % THREADS == 0 || t + uint(THREADS * c) < uint(PAIRS);
    }

    template <bool TWO_SIDED>
    static inline void write(const threadgroup float2* exchange, uint frame,
                             const device float2* split, uint t, float scale, float edge,
                             device float2* spectrum, long step) {
      // All are read before the first is written: the reads do not wait for one another.
      float2 low[EACH], high[EACH];
      const uint up = frame + t * uint(BYTES), down = frame + (uint(POINTS) - t) * uint(BYTES);
#pragma unroll
      for (int c = 0; c < EACH; ++c) {
        if (!owns(t, c)) continue;
        const uint further = uint(THREADS * c * BYTES);
        get<BOTH_PARTS>(exchange, up + further, low[c]);
        get<BOTH_PARTS>(exchange, c == 0 && t == 0 ? frame : down - further, high[c]);
      }
#pragma unroll
      for (int c = 0; c < EACH; ++c) {
        if (!owns(t, c)) continue;
        write_pair<TWO_SIDED>(low[c], high[c], split, t, c, 0.5f * scale, edge, spectrum, step);
      }
      if (POINTS % 2 == 0 && t == 0) {
        float2 middle;
        get<BOTH_PARTS>(exchange, frame + uint(POINTS / 2 * BYTES), middle);
        middle = product(middle, scale);
        spectrum[POINTS / 2 * step] = conjugate(middle);
        if (TWO_SIDED) spectrum[(POINTS + POINTS / 2) * step] = middle;
      }
    }

    // Pointers of a thread plus what the compiler knows.
    template <bool TWO_SIDED>
    static inline void write_pair(float2 low, float2 high, const device float2* split, uint t,
                                  int c, float half_scale, float edge, device float2* spectrum,
                                  long step) {
      const bool is_edge = c == 0 && t == 0;
      float2 u, v;
      combine(low + conjugate(high), low - conjugate(high), (split + t)[THREADS * c], u, v);
      const float factor = is_edge ? half_scale * edge : half_scale;
      u = product(u, factor);
      v = product(conjugate(v), factor);
      const long further = THREADS * c * step;
      (spectrum + t * step)[further] = u;
      (spectrum + (uint(POINTS) - t) * step)[-further] = v;
      if (TWO_SIDED && !is_edge) {
        (spectrum + (uint(POINTS) + t) * step)[further] = conjugate(v);
        (spectrum + (uint(2 * POINTS) - t) * step)[-further] = conjugate(u);
      }
    }
  };
};

// One complex point for each sample; real signals have no imaginary parts.
struct Direct {
  template <class F, class Weights>
  static inline float2 point(const thread F& frame, const thread Weights& window, uint j) {
    return as_complex(product(frame.at(int(j)), window.at(j)));
  }

  template <class Weights>
  static inline typename Weights::Value weight(const thread Weights& window, uint j) {
    return window.at(j);
  }
  template <class F, class W>
  static inline float2 weighed(const thread F& frame, W weight, uint j) {
    return as_complex(product(frame.at(int(j)), weight));
  }

  template <class W> static inline W plus_square(W sum, W weight) {
    return spectro::plus_square(sum, weight);
  }
  template <class W> static inline W divided(W weight, W squares, float scale) {
    return product(weight, inverse(squares, scale));
  }

  template <class P> struct Bins {
    enum { SAMPLES = P::POINTS };

    template <bool TWO_SIDED>
    static inline void write(const threadgroup float2* exchange, uint frame, const device float2*,
                             uint t, float scale, float edge, device float2* spectrum,
                             long step) {
      const threadgroup float2* z = &at_bytes<float2>(exchange, frame);
      const uint points = P::POINTS, bins = TWO_SIDED ? points : points / 2 + 1;
      for (uint k = t; k < bins; k += P::THREADS) {
        const bool is_edge = k == 0 || 2 * k == points;
        spectrum[k * step] = product(z[k], is_edge ? scale * edge : scale);
      }
    }
  };
};

// Turns a frame's points into bins of a spectrum, unless the frame lies behind the last one.
// ACROSS: a thread writes bins of another frame than it has transformed.
template <class Packing, bool TWO_SIDED, bool ACROSS> struct IntoSpectrum {
  const device float2* split;
  device float2* spectrum;  // of the frame that is written, `step` from one bin to the next
  long step;
  float scale, edge;
  uint written, writer;  // that frame, in bytes from the buffers' beginning; the thread among its
  bool active;

  template <class P, class LAST>
  inline void take(threadgroup float2* exchange, uint frame, uint t,
                   const thread float2 (&v)[LAST::PER_THREAD][LAST::R]) const {
    typedef typename Packing::template Bins<P> Bins;
    LAST::template store<BOTH_PARTS>(exchange, frame, t, v);
    if (ACROSS) {
      threadgroup_barrier(mem_flags::mem_threadgroup);
    } else {
      frame_barrier<P::THREADS>();
    }
    if (active) {
      Bins::template write<TWO_SIDED>(exchange, ACROSS ? written : frame, split,
                                      ACROSS ? writer : t, scale, edge, spectrum,
                                      ACROSS ? step : 1L);
    }
  }
};

// The points of one frame, where thread `t` of it wants them.
template <class P, class Packing, class F, class Weights>
inline void load_points(const thread F& frame, const thread Weights& window, uint t,
                        thread float2 (&v)[Pass<P, 0>::PER_THREAD][Pass<P, 0>::R]) {
  typedef Pass<P, 0> First;
#pragma unroll
  for (int i = 0; i < First::PER_THREAD; ++i) {
    if (!First::owns(t, i)) continue;
#pragma unroll
    for (int r = 0; r < First::R; ++r) {
      v[i][r] = Packing::point(frame, window, First::input(t, i, r));
    }
  }
}

// The points of a frame that may lie inside its row, of neighbouring samples.
template <class P, class Packing, class T, class Weights>
inline void load_frame(const thread Frame<T>& frame, const thread Weights& window, uint t,
                       thread float2 (&v)[Pass<P, 0>::PER_THREAD][Pass<P, 0>::R]) {
  if (frame.is_dense && are_pairs_at(frame.inside)) {
    const PairedFrame<T> paired = {frame.inside};
    load_points<P, Packing>(paired, window, t, v);
  } else if (frame.is_dense) {
    const DenseFrame<T> dense = {frame.inside};
    load_points<P, Packing>(dense, window, t, v);
  } else {
    load_points<P, Packing>(frame, window, t, v);
  }
}

// The same, where the frame's samples are divided by the envelope of frames 0 ... frames - 1; it is
// frame m, and ARE_ALIKE: all frames lie over each of its samples that might. A thread has all of the
// window's values that meet in its samples.
template <class P, class Packing, int HOP, bool ARE_ALIKE, class F, class Weights>
inline void load_divided_points(const thread F& frame, const thread Weights& window, float scale,
                                int m, int frames, uint t,
                                thread float2 (&v)[Pass<P, 0>::PER_THREAD][Pass<P, 0>::R]) {
  typedef Pass<P, 0> First;
  // Inputs so many apart lie a hop apart.
  enum { R = First::R, APART = HOP / (Packing::template Bins<P>::SAMPLES / R) };
  typedef decltype(Packing::weight(window, 0u)) Weight;
#pragma unroll
  for (int i = 0; i < First::PER_THREAD; ++i) {
    if (!First::owns(t, i)) continue;
    Weight weights[R];
#pragma unroll
    for (int r = 0; r < R; ++r) weights[r] = Packing::weight(window, First::input(t, i, r));
#pragma unroll
    for (int r = 0; r < R; ++r) {
      Weight squares;
      set_zero(squares);
#pragma unroll
      for (int other = r % APART; other < R; other += APART) {
        const int covering = m + (r - other) / APART;
        if (ARE_ALIKE || uint(covering) < uint(frames)) {
          squares = Packing::plus_square(squares, weights[other]);
        }
      }
      const uint j = First::input(t, i, r);
      v[i][r] = Packing::weighed(frame, Packing::divided(weights[r], squares, scale), j);
    }
  }
}

// A window whose values are multiplied by factors, which come again after EVERY of them.
template <class Weights, int EVERY> struct WeighedWindow {
  typedef typename Weights::Value Value;

  Weights window;
  const threadgroup Value* factors;

  inline Value at(uint i) const { return product(window.at(i), factors[i % uint(EVERY)]); }
  inline float2 pair(uint j) const {
    const uint i = 2 * j % uint(EVERY);
    if (EVERY % 2 == 0) {
      return by_parts(window.pair(j), *(const threadgroup float2*)(factors + i));
    }
    return by_parts(window.pair(j), complex(factors[i], factors[(2 * j + 1) % uint(EVERY)]));
  }
};

// How the frames of a group are divided by their envelope. IN_REGISTERS: a hop is a multiple of what
// lies between the inputs of a butterfly.
template <class P, class Packing, int HOP, int FRAMES, bool IN_REGISTERS> struct DividedFrames {
  template <class T, class Weights>
  static inline void load(const thread Frame<T>& frame, const thread Weights& window, float scale,
                          long, int m, int frames, threadgroup float2*, uint thread_index,
                          thread float2 (&v)[Pass<P, 0>::PER_THREAD][Pass<P, 0>::R]) {
    enum { OVERLAP = divided_up(Packing::template Bins<P>::SAMPLES, HOP) };
    const uint t = thread_index % uint(P::THREADS);
    const bool are_alike = m >= OVERLAP - 1 && m + OVERLAP <= frames;
    if (are_alike && frame.is_dense && are_pairs_at(frame.inside)) {
      const PairedFrame<T> paired = {frame.inside};
      load_divided_points<P, Packing, HOP, true>(paired, window, scale, m, frames, t, v);
    } else if (are_alike && frame.is_dense) {
      const DenseFrame<T> dense = {frame.inside};
      load_divided_points<P, Packing, HOP, true>(dense, window, scale, m, frames, t, v);
    } else {
      load_divided_points<P, Packing, HOP, false>(frame, window, scale, m, frames, t, v);
    }
  }
};

// Else the inverse envelope passes through the buffers: of one hop, if all hops of the group's frames
// are alike, else of every sample of each. Behind, the buffers are free.
template <class P, class Packing, int HOP, int FRAMES>
struct DividedFrames<P, Packing, HOP, FRAMES, false> {
  template <class T, class Weights>
  static inline void load(const thread Frame<T>& frame, const thread Weights& window, float scale,
                          long first, int m, int frames, threadgroup float2* exchange,
                          uint thread_index,
                          thread float2 (&v)[Pass<P, 0>::PER_THREAD][Pass<P, 0>::R]) {
    typedef typename Weights::Value W;
    enum { SAMPLES = Packing::template Bins<P>::SAMPLES, OVERLAP = divided_up(SAMPLES, HOP) };
    const bool are_alike = first >= OVERLAP - 1 && first + (FRAMES - 1 + OVERLAP) <= frames;
    const uint t = thread_index % uint(P::THREADS), f = thread_index / uint(P::THREADS);
    const uint begin = are_alike ? thread_index : t, end = are_alike ? HOP : SAMPLES;
    threadgroup W* factors = &at_bytes<W>(exchange, are_alike ? 0u : f * uint(P::FRAME_BYTES));
    for (uint i = begin; i < end; i += are_alike ? FRAMES * P::THREADS : P::THREADS) {
      const int q = (are_alike ? OVERLAP - 1 : m) + int(i / uint(HOP)), r = int(i % uint(HOP));
      factors[i] = inverse(envelope(window, q, r, HOP, SAMPLES, frames), scale);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (are_alike) {
      const WeighedWindow<Weights, HOP> weighed = {window, factors};
      load_frame<P, Packing>(frame, weighed, t, v);
    } else {
      const WeighedWindow<Weights, SAMPLES> weighed = {window, factors};
      load_points<P, Packing>(frame, weighed, t, v);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
};

// One group's share. T: float or float2; Weights: a Window. `thread_index` counts in the group;
// `exchange` has exchange_elements<P>(FRAMES).
template <class P, class Packing, bool TWO_SIDED, bool SCALED, bool ENVELOPE, int HOP, int FRAMES,
          bool FRAMES_FASTEST, class T, class Weights>
inline void analysis(const device T* signal, long row_step, long sample_step,
                     const thread Weights& window, const device float2* table,
                     const device long* parameters, float edge, device float2* spectrum,
                     threadgroup float2* exchange, uint thread_index, uint group, uint row) {
  const uint t = thread_index % uint(P::THREADS), f = thread_index / uint(P::THREADS);
  const long frames = parameters[ANALYSIS_FRAMES];
  const uint bins = uint(parameters[ANALYSIS_BINS]);
  const long asked = long(group) * FRAMES + f;
  const bool active = asked < frames;
  // Threads without a frame compute the last one again, since all threads must reach the barriers.
  const long m = active ? asked : frames - 1;

  const Row<T> samples(signal + long(row) * row_step, sample_step, parameters[ANALYSIS_SAMPLES],
                       int(parameters[ANALYSIS_PAD_MODE]));
  const long start = m * parameters[ANALYSIS_HOP] - parameters[ANALYSIS_PADDING];
  const Frame<T> frame(samples, start, int(parameters[ANALYSIS_N_FFT]));

  const float scale =
      SCALED || ENVELOPE ? as_type<float>(int(parameters[ANALYSIS_SCALE])) : 1.0f;
  typedef Pass<P, 0> First;
  float2 v[First::PER_THREAD][First::R];
  if (ENVELOPE) {
    enum { BETWEEN = Packing::template Bins<P>::SAMPLES / First::R };
    DividedFrames<P, Packing, HOP, FRAMES, HOP % BETWEEN == 0>::load(
        frame, window, scale, long(group) * FRAMES, int(m), int(frames), exchange, thread_index, v);
  } else {
    load_frame<P, Packing>(frame, window, t, v);
  }
  First::transform(table, t, v);
  const uint written = FRAMES_FASTEST ? thread_index % FRAMES : f;
  const long place = FRAMES_FASTEST ? long(group) * FRAMES + written : m;
  const IntoSpectrum<Packing, TWO_SIDED, FRAMES_FASTEST> finish = {
      table + parameters[ANALYSIS_SPLIT_TABLE],
      spectrum + (FRAMES_FASTEST ? long(row) * bins * frames + place
                                 : (long(row) * frames + place) * bins),
      frames, SCALED ? scale : 1.0f, edge, written * uint(P::FRAME_BYTES),
      thread_index / FRAMES, FRAMES_FASTEST ? place < frames : active};
  Chain<P, 0>::run(exchange, f * uint(P::FRAME_BYTES), table, t, v, finish);
}

// The packing by a flag, which MLX passes to a kernel.
template <bool PACKED> struct AnalysisPacking { typedef Direct Type; };
template <> struct AnalysisPacking<true> { typedef Packed Type; };

}  // namespace spectro
