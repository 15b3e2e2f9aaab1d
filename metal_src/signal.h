// Reading one row of a signal, padded at both ends as torch.nn.functional.pad does it.
//
// NumPy:  Row::at(p) == np.pad(row, padding, mode)[p + padding] with the modes constant, reflect,
//         edge (here replicate) and wrap (here circular); p counts from the row's first sample.
// Limits: reflect needs padding < samples, circular padding <= samples, replicate samples > 0.
//         Positions and strides have 64 bits.
#pragma once

#include "complex.h"

namespace spectro {

enum PadMode { PAD_CONSTANT, PAD_REFLECT, PAD_REPLICATE, PAD_CIRCULAR };

// The sample that position p outside the row repeats; never called for PAD_CONSTANT.
inline long repeated_position(long p, long samples, int mode) {
  if (mode == PAD_REFLECT) return p < 0 ? -p : 2 * (samples - 1) - p;
  if (mode == PAD_REPLICATE) return p < 0 ? 0 : samples - 1;
  return p < 0 ? p + samples : p - samples;
}

struct Padding {
  long samples;  // of the row
  long padding;  // positions added at either end
  int mode;
};

// The transpose of padding with reflect or circular: padded positions from ... to - 1, on one side,
// repeat samples; sample t is repeated at position of(t) if that lies among them. Here positions
// count from the first padded one. With replicate, all of from ... to - 1 repeat one sample.
struct RepeatedPositions {
  long from;
  long to;
  long zeroth;
  int direction;

  inline RepeatedPositions(Padding padding, int side) {
    const long inside = padding.padding + padding.samples;
    from = side == 0 ? 0 : inside;
    to = from + padding.padding;
    if (padding.mode == PAD_CIRCULAR) {
      direction = 1;
      zeroth = padding.padding + (side == 0 ? -padding.samples : padding.samples);
    } else {
      direction = -1;
      zeroth = padding.padding + (side == 0 ? 0 : 2 * (padding.samples - 1));
    }
  }

  inline long of(long t) const { return zeroth + direction * t; }
};

template <class T> struct Row {
  const device T* first;  // the row's sample 0
  long step;              // elements from one sample to the next
  long samples;
  int mode;

  inline T at(long p) const {
    if (p < 0 || p >= samples) {
      if (mode == PAD_CONSTANT) {
        T zero;
        set_zero(zero);
        return zero;
      }
      p = repeated_position(p, samples, mode);
    }
    return first[p * step];
  }
};

// A frame that lies inside its row, of samples that are neighbours.
template <class T> struct DenseFrame {
  const device T* first;

  inline T at(int i) const { return first[i]; }
};

// Any other frame: inside the row by an offset of 32 bits, else by Row::at.
template <class T> struct Frame {
  Row<T> row;
  long start;  // position of the frame's sample 0
  const device T* inside;
  bool is_inside;
  bool is_dense;

  inline Frame(Row<T> of, long position, int n_fft) {
    row = of;
    start = position;
    is_inside = position >= 0 && position + n_fft <= of.samples;
    is_dense = is_inside && of.step == 1;
    inside = of.first + (is_inside ? position * of.step : 0);
  }

  inline T at(int i) const {
    if (is_inside) return inside[i * row.step];
    return row.at(start + i);
  }
};

}  // namespace spectro
