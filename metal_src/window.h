// The analysis window where it lies.
//
// NumPy:  padded = np.pad(window, (left, n_fft - left - length)); Window::at(i) == padded[i]
// Limits: places in a window have 32 bits, its stride has 64.
#pragma once

#include "complex.h"

namespace spectro {

// A whole window has n_fft values, neighbours in memory, real ones at an address of whole pairs; a
// strided one any length and stride. Without one its values are ones, and its address is nothing.
enum WindowLayout { STRIDED_WINDOW, WHOLE_WINDOW, NO_WINDOW };

inline void set_one(thread float& x) { x = 1.0f; }
inline void set_one(thread float2& z) { z = complex(1.0f, 0.0f); }

template <class W, int LAYOUT> struct Window {
  typedef W Value;

  const device W* first;
  long step;
  int left, length;

  // `layout` has the step, what is missing on the left, and the length.
  inline Window(const device W* of_window, const device long* layout) {
    first = of_window;
    step = layout[0];
    left = int(layout[1]);
    length = int(layout[2]);
  }

  inline W at(uint i) const {
    if (LAYOUT == WHOLE_WINDOW) return first[i];
    W value;
    set_zero(value);
    const uint inside = i - uint(left);
    if (inside < uint(length)) {
      if (LAYOUT == NO_WINDOW) {
        set_one(value);
      } else {
        value = first[long(inside) * step];
      }
    }
    return value;
  }

  // Values 2 j and 2 j + 1 of a real window.
  inline float2 pair(uint j) const {
    if (LAYOUT == WHOLE_WINDOW) return ((const device float2*)first)[j];
    return complex(at(2 * j), at(2 * j + 1));
  }
};

}  // namespace spectro
