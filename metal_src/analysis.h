// The analysis map: signal -> padded frames -> window -> Fourier transform -> bins.
//
// NumPy:  frames = sliding_window_view(np.pad(x[row], padding, mode), n_fft)[::hop][:frames]
//         spectrum[row] = np.fft.fft(frames * window)[:, :bins]
//         with bins 0 and n_fft / 2 multiplied by `edge`. The caller folds every other scale into
//         the window, and one half where the packed transform is used.
// Grid:   x: ceil(frames / FRAMES) groups of FRAMES * P::THREADS threads; y: rows.
// Output: (rows, frames, bins), dense.
// Limits: P::POINTS is n_fft / 2 (packed: n_fft even, signal and window real) or n_fft (direct);
//         n_fft <= 8192 packed, 4096 direct. hop, strides and lengths are run-time, 64 bits.
//
// As the adjoint of synthesis: ENVELOPE (the signal is multiplied by the inverse envelope first; then
// HOP is the hop, which otherwise is not compiled for), constant padding, edge one half and a window scaled by two (the other bins of a real spectrum
// stand for two each).
#pragma once

#include "fft.h"
#include "overlap_add.h"
#include "signal.h"

namespace spectro {

// The launch's integers, in this order.
enum AnalysisParameter {
  ANALYSIS_SAMPLES,
  ANALYSIS_FRAMES,
  ANALYSIS_HOP,
  ANALYSIS_PADDING,
  ANALYSIS_PAD_MODE,
  ANALYSIS_N_FFT,
  ANALYSIS_BINS,
  ANALYSIS_OVERLAP,
  ANALYSIS_SPLIT_TABLE,
  ANALYSIS_PARAMETERS
};

// A frame of a signal that is multiplied by the inverse envelope of overlap-added frames.
template <class T, class E, int HOP> struct EnvelopedFrame {
  Frame<T> frame;
  const device E* envelope;
  int m, frames, overlap;

  inline auto at(int i) const -> decltype(product(T(), E())) {
    const uint row = uint(envelope_row(m + i / HOP, frames, overlap));
    return product(frame.at(i), envelope[row * uint(HOP) + uint(i) % uint(HOP)]);
  }
};

// The same for a dense frame where all hops have the envelope of `overlap` frames.
template <class T, class E, int HOP> struct SteadyFrame {
  DenseFrame<T> frame;
  const device E* steady;

  inline auto at(int i) const -> decltype(product(T(), E())) {
    return product(frame.at(i), steady[uint(i) % uint(HOP)]);
  }
};

// Real samples 2 j and 2 j + 1 are the parts of point j; a transform of n_fft / 2 points.
struct Packed {
  template <class F, class W>
  static inline float2 point(const thread F& frame, const device W* window, uint j) {
    const device float2* pairs = (const device float2*)window;
    float2 w = pairs[j];
    return complex(frame.at(int(2 * j)) * w.x, frame.at(int(2 * j + 1)) * w.y);
  }

  // With A = z[k] + conj(z[M - k]), D = z[k] - conj(z[M - k]) and f = -i exp(-2 pi i k / n_fft):
  // X[k] = (A + f D) / 2 and X[M - k] = conj(A - f D) / 2.
  template <class P>
  static inline void write(const threadgroup float2* z, const device float2* split, uint t,
                           uint bins, float edge, device float2* spectrum) {
    const uint points = P::POINTS, both = 2 * points;
    for (uint k = t; k <= points / 2; k += P::THREADS) {
      float2 a = z[k], b = conjugate(z[k == 0 ? 0 : points - k]);
      float2 low, high;
      combine(a + b, a - b, split[k], low, high);
      high = conjugate(high);
      if (k == 0) {
        low = product(low, edge);
        high = product(high, edge);
      }
      spectrum[k] = low;
      if (points - k != k) spectrum[points - k] = high;
      if (bins == both) {
        if (k > 0) spectrum[both - k] = conjugate(low);
        if (k > 0 && points - k != k) spectrum[points + k] = conjugate(high);
      }
    }
  }
};

// One complex point for each sample; real signals have no imaginary parts.
struct Direct {
  template <class F, class W>
  static inline float2 point(const thread F& frame, const device W* window, uint j) {
    return as_complex(product(frame.at(int(j)), window[j]));
  }

  template <class P>
  static inline void write(const threadgroup float2* z, const device float2*, uint t, uint bins,
                           float edge, device float2* spectrum) {
    const uint points = P::POINTS;
    for (uint k = t; k < bins; k += P::THREADS) {
      bool is_edge = k == 0 || 2 * k == points;
      spectrum[k] = is_edge ? product(z[k], edge) : z[k];
    }
  }
};

// The points of one frame, where thread `t` of it wants them.
template <class P, class Packing, class F, class W>
inline void load_points(const thread F& frame, const device W* window, uint t,
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

// One group's share. T, W: float or float2, of signal and window (and envelope). `thread_index`
// counts in the group; `exchange` has exchange_elements<P>(FRAMES).
template <class P, class Packing, bool ENVELOPE, int HOP, int FRAMES, class T, class W>
inline void analysis(const device T* signal, long row_step, long sample_step,
                     const device W* window, const device W* envelope, const device float2* table,
                     const device long* parameters, float edge, device float2* spectrum,
                     threadgroup float2* exchange, uint thread_index, uint group, uint row) {
  const uint t = thread_index % uint(P::THREADS), f = thread_index / uint(P::THREADS);
  const long frames = parameters[ANALYSIS_FRAMES];
  const uint bins = uint(parameters[ANALYSIS_BINS]);
  const long asked = long(group) * FRAMES + f;
  const bool active = asked < frames;
  // Threads without a frame compute the last one again: barriers are for everybody.
  const long m = active ? asked : frames - 1;

  Row<T> samples;
  samples.first = signal + long(row) * row_step;
  samples.step = sample_step;
  samples.samples = parameters[ANALYSIS_SAMPLES];
  samples.mode = int(parameters[ANALYSIS_PAD_MODE]);
  const long start = m * parameters[ANALYSIS_HOP] - parameters[ANALYSIS_PADDING];
  const Frame<T> frame(samples, start, int(parameters[ANALYSIS_N_FFT]));

  typedef Pass<P, 0> First;
  float2 v[First::PER_THREAD][First::R];
  if (ENVELOPE) {
    const int count = int(frames), overlap = int(parameters[ANALYSIS_OVERLAP]);
    if (frame.is_dense && m >= overlap - 1 && m + overlap <= frames) {
      SteadyFrame<T, W, HOP> steady = {{frame.inside}, envelope + (overlap - 1) * HOP};
      load_points<P, Packing>(steady, window, t, v);
    } else {
      EnvelopedFrame<T, W, HOP> enveloped = {frame, envelope, int(m), count, overlap};
      load_points<P, Packing>(enveloped, window, t, v);
    }
  } else if (frame.is_dense) {
    DenseFrame<T> dense = {frame.inside};
    load_points<P, Packing>(dense, window, t, v);
  } else {
    load_points<P, Packing>(frame, window, t, v);
  }
  First::transform(table, t, v);
  const uint bytes = f * uint(P::FRAME_BYTES);
  Chain<P, 0>::run(exchange, bytes, table, t, v, IntoBuffer());
  if (active) {
    Packing::template write<P>(&at_bytes<float2>(exchange, bytes), table + parameters[ANALYSIS_SPLIT_TABLE], t, bins, edge,
                               spectrum + (long(row) * frames + m) * bins);
  }
}

}  // namespace spectro
