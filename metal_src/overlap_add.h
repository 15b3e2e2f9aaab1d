// Overlap-add by gathering: every output sample sums the frames that cover it, so that no two
// threads write one address, and the order of summation is fixed.
//
// NumPy:  padded = np.zeros(...); for m in range(frames): padded[m*hop : m*hop + n_fft] += y[m]
//         gather adds y[m][i - (m - first)*hop] to `sum` over m in [first, last], from the newest
//         frame to the oldest, i being the sample's index in frame `first` (may lie beyond it).
// Limits: frame indices, and positions counted from the group's own, have 32 bits; whole
//         positions have 64.
#pragma once

#include "complex.h"

namespace spectro {

// A padded position as (q, r): position = q * hop + r with 0 <= r < hop.
struct HopPosition {
  int q;
  int r;

  inline HopPosition(long position, int hop) {
    long quotient = position / hop;
    long remainder = position - quotient * hop;
    if (remainder < 0) {
      remainder += hop;
      quotient -= 1;
    }
    q = int(quotient);
    r = int(remainder);
  }

  // Moves by `by`, itself split by the same hop.
  inline void advance(HopPosition by, int hop) {
    q += by.q;
    r += by.r;
    if (r >= hop) {
      r -= hop;
      q += 1;
    }
  }
};

// Which frames cover padded positions first ... last: frames low ... high, clipped to those there
// are; none where high < low.
struct Covering {
  int low;
  int high;

  inline Covering(long first, long last, int n_fft, int hop, int frames) {
    // The oldest frame over `first` is the first that ends behind it.
    long from = first < n_fft ? 0 : (first - n_fft) / hop + 1;
    long to = last < 0 ? -1 : last / hop;
    low = int(from);
    high = to < frames ? int(to) : frames - 1;
  }
};

// `frames.at(m, i)` is sample i of windowed frame m.
template <class T, class Frames>
inline void gather(const thread Frames& frames, int i, int first, int last, int hop, int n_fft,
                   thread T& sum) {
  if (i < 0) return;
  const int newest = first + i / hop;
  int m = newest < last ? newest : last;
  for (i -= (m - first) * hop; m >= first && i < n_fft; i += hop, --m) sum += frames.at(m, i);
}

}  // namespace spectro
