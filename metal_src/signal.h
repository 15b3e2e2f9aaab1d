// Reading one row of a signal, padded at both ends as torch.nn.functional.pad does it.
//
// NumPy:  Row::at(p) == np.pad(row, padding, mode)[p + padding] with the modes constant, reflect,
//         edge (here replicate) and wrap (here circular); p counts from the row's first sample.
// Limits: reflect needs padding < samples, circular padding <= samples, replicate samples > 0.
//         Positions in a row have 32 bits, strides and frames' beginnings 64.
#pragma once

#include "complex.h"

namespace spectro {

enum PadMode { PAD_CONSTANT, PAD_REFLECT, PAD_REPLICATE, PAD_CIRCULAR };

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

// Positions count from the row's first sample and have 32 bits. Outside, position p repeats sample
// sign * p + before (left of the row) or sign * p + behind, modulo 2^32: no branch for each mode.
template <class T> struct Row {
  const device T* first;  // the row's sample 0
  long step;              // elements from one sample to the next
  int samples;
  uint sign, before, behind;
  bool repeats;

  inline Row(const device T* of_row, long of_step, long count, int mode) {
    first = of_row;
    step = of_step;
    samples = int(count);
    repeats = mode != PAD_CONSTANT;
    const uint all = uint(count);
    sign = mode == PAD_REFLECT ? 0u - 1u : mode == PAD_CIRCULAR ? 1u : 0u;
    before = mode == PAD_CIRCULAR ? all : 0u;
    behind = mode == PAD_REFLECT ? 2u * (all - 1u) : mode == PAD_CIRCULAR ? 0u - all : all - 1u;
  }

  inline T at(int p) const {
    T value;
    set_zero(value);
    const bool is_inside = p >= 0 && p < samples;
    const int repeated = int(sign * uint(p) + (p < 0 ? before : behind));
    if (is_inside || repeats) value = first[long(is_inside ? p : repeated) * step];
    return value;
  }
};

// Two samples that are neighbours in memory, in one read. Metal has a type for pairs that lie
// anywhere; CUDA reads pairs at even places only.
#ifdef __CUDACC__
typedef float2 NeighbouringPair;
inline bool are_pairs_at(const device float* first) { return (ulong)first % sizeof(float2) == 0; }
#else
typedef packed_float2 NeighbouringPair;
inline bool are_pairs_at(const device float*) { return true; }
#endif
inline bool are_pairs_at(const device float2*) { return false; }

// Frames that lie inside their row, of samples that are neighbours: any, and those read in pairs.
template <class T> struct DenseFrame {
  const device T* first;

  inline T at(int i) const { return first[i]; }
  // Samples 2 j and 2 j + 1 of a real signal.
  inline float2 pair(uint j) const { return complex(first[2 * j], first[2 * j + 1]); }
};
template <class T> struct PairedFrame {
  const device T* first;

  inline T at(int i) const { return first[i]; }
  inline float2 pair(uint j) const {
    const float2 value = ((const device NeighbouringPair*)first)[j];
    return value;
  }
};

// Any other frame.
template <class T> struct Frame {
  Row<T> row;
  int start;  // position of the frame's sample 0
  const device T* inside;
  bool is_inside;
  bool is_dense;

  inline Frame(Row<T> of, long position, int n_fft) : row(of) {
    start = int(position);
    is_inside = position >= 0 && position + n_fft <= of.samples;
    is_dense = is_inside && of.step == 1;
    inside = of.first + (is_inside ? position * of.step : 0);
  }

  inline T at(int i) const { return row.at(start + i); }
  inline float2 pair(uint j) const { return complex(at(int(2 * j)), at(int(2 * j + 1))); }
};

}  // namespace spectro
