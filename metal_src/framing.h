// Frames without a transform of our own: for sizes that the fused kernels do not cover, around a
// transform from elsewhere. One thread makes one value.
//
// NumPy:  cut_frame:    frames[row, m, i] = np.pad(x[row], padding, mode)[m*hop + i] * window[i] * scale
//                       with ENVELOPE divided by scale times the envelope at m*hop + i instead
//         added_frames: see synthesis.h, with y[m] = frames[row, m] * window
// Grid:   cut_frame: x: n_fft, y: frames, z: rows; added_frames: x: length, y: rows.
// Output: dense.
// Limits: n_fft < 2^31; otherwise memory's. Folding replicate padding is one thread's loop.
#pragma once

#include "overlap_add.h"
#include "signal.h"
#include "envelope.h"

namespace spectro {

enum FramingParameter {
  FRAMING_SAMPLES,
  FRAMING_FRAMES,
  FRAMING_HOP,
  FRAMING_PADDING,
  FRAMING_PAD_MODE,
  FRAMING_N_FFT,
  FRAMING_SCALE,
  FRAMING_WINDOW_STEP,
  FRAMING_WINDOW_LEFT,
  FRAMING_WINDOW_LENGTH,
  FRAMING_PARAMETERS
};

template <bool ENVELOPE, class T, class Weights, class Out>
inline void cut_frame(const device T* signal, long row_step, long sample_step,
                      const thread Weights& window, const device long* parameters,
                      device Out* frames, uint i, uint m, uint row) {
  const long n_fft = parameters[FRAMING_N_FFT];
  const float scale = as_type<float>(int(parameters[FRAMING_SCALE]));
  const Row<T> samples(signal + long(row) * row_step, sample_step, parameters[FRAMING_SAMPLES],
                       int(parameters[FRAMING_PAD_MODE]));
  const long p = long(m) * parameters[FRAMING_HOP] - parameters[FRAMING_PADDING] + i;
  const long frame = long(row) * parameters[FRAMING_FRAMES] + m;
  Out value = product(samples.at(int(p)), window.at(i));
  if (ENVELOPE) {
    const int hop = int(parameters[FRAMING_HOP]), count = int(parameters[FRAMING_FRAMES]);
    const int q = int(m) + int(i) / hop, r = int(i) % hop;
    value = product(value, inverse(envelope(window, q, r, hop, int(n_fft), count), scale));
  } else {
    value = product(value, scale);
  }
  frames[frame * n_fft + i] = value;
}

enum AddingParameter {
  ADDING_FRAMES,
  ADDING_HOP,
  ADDING_N_FFT,
  ADDING_START,
  ADDING_KEPT,
  ADDING_LENGTH,
  ADDING_PADDING,
  ADDING_PAD_MODE,
  ADDING_SCALE,
  ADDING_WINDOW_STEP,
  ADDING_WINDOW_LEFT,
  ADDING_WINDOW_LENGTH,
  ADDING_PARAMETERS
};

template <class T, class Weights> struct DeviceFrames {
  const device T* first;  // of this row
  Weights window;
  long n_fft;

  inline auto at(int m, int i) const -> decltype(product(T(), typename Weights::Value())) {
    return product(first[long(m) * n_fft + i], window.at(uint(i)));
  }
};

// The sum over one padded position.
template <class T, class Weights, class Sample>
inline void add_position(const thread DeviceFrames<T, Weights>& frames, long position, int count,
                         int hop, thread Sample& sum) {
  const int n_fft = int(frames.n_fft);
  const Covering covering(position, position, n_fft, hop, count);
  const int i = int(position - long(covering.low) * hop);
  gather(frames, i, covering.low, covering.high, hop, n_fft, sum);
}

template <bool ENVELOPE, bool FOLD, class T, class Weights, class Sample>
inline void added_frames(const device T* frames, const thread Weights& window,
                         const device long* parameters, device Sample* signal,
                         device atomic_uint* vanishing, uint t, uint row) {
  const int count = int(parameters[ADDING_FRAMES]), hop = int(parameters[ADDING_HOP]);
  const long start = parameters[ADDING_START], length = parameters[ADDING_LENGTH];
  const long n_fft = parameters[ADDING_N_FFT];
  const DeviceFrames<T, Weights> source = {frames + long(row) * count * n_fft, window, n_fft};

  Sample sum;
  set_zero(sum);
  const bool kept = long(t) < parameters[ADDING_KEPT];
  if (kept) add_position(source, long(t) + start, count, hop, sum);
  if (FOLD) {
    Padding padding;
    padding.samples = length;
    padding.padding = parameters[ADDING_PADDING];
    padding.mode = int(parameters[ADDING_PAD_MODE]);
    for (int side = 0; side < 2; ++side) {
      const RepeatedPositions repeated(padding, side);
      const bool is_end = long(t) == (side == 0 ? 0 : length - 1);
      long first = repeated.of(long(t)), last = first;
      if (padding.mode == PAD_REPLICATE && is_end) {
        first = repeated.from;
        last = repeated.to - 1;
      }
      const bool repeats = padding.mode != PAD_CONSTANT && first >= repeated.from &&
                           last < repeated.to && (padding.mode != PAD_REPLICATE || is_end);
      for (long p = first; repeats && p <= last; ++p) add_position(source, p, count, hop, sum);
    }
  }
  const float scale = as_type<float>(int(parameters[ADDING_SCALE]));
  if (!ENVELOPE) {
    sum = product(sum, scale);
  } else if (kept) {
    const HopPosition p(long(t) + start, hop);
    const auto squares = envelope(window, p.q, p.r, hop, int(n_fft), count);
    if (vanishes(squares)) note(vanishing);
    sum = product(sum, inverse(squares, scale));
  }
  signal[long(row) * length + t] = sum;
}

}  // namespace spectro
