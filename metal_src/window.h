// What an istft reads of its real analysis window, made where the window is: the window, padded and
// scaled, and the inverse of its overlap-added square; and whether torch refuses that one.
//
// NumPy:  full = np.pad(window, (left, n_fft - left - length)); scaled = full * factor
//         q = np.pad(full ** 2, (0, overlap * hop - n_fft)).reshape(overlap, hop)
//         rows[r] = q[max(0, r - frames + 1) : min(overlap, r + 1)].sum(axis=0)
//         prepared = [scaled, zeros, scale / rows where rows != 0]; envelope.py numbers the rows
//         vanishes[i]: a row is below the threshold at a kept sample of column i
// Grid:   a thread for each verdict, then one for each value of `prepared`. No barriers.
// Limits: hop 0 asks for the window alone, and one verdict of 0. Sums carry some 48 bits (squares
//         split by fma, sums by Knuth's two-sum), so their inverses are float64's, rounded, or next
//         to it.
#pragma once

namespace spectro {

// Kept are samples from START on, before END: positions as hops and what is left. ROWS is where the
// rows begin in `prepared`; what follows are bits of floats, a REST what its predecessor lacks of a
// double.
enum WindowParameter {
  WINDOW_LENGTH,
  WINDOW_LEFT,
  WINDOW_N_FFT,
  WINDOW_HOP,
  WINDOW_FRAMES,
  WINDOW_OVERLAP,
  WINDOW_START_HOPS,
  WINDOW_START_REST,
  WINDOW_END_HOPS,
  WINDOW_END_REST,
  WINDOW_ROWS,
  WINDOW_FACTOR,
  WINDOW_FACTOR_REST,
  WINDOW_SCALE,
  WINDOW_SCALE_REST,
  WINDOW_THRESHOLD,
  WINDOW_PARAMETERS
};

struct Wide {
  float high;
  float low;
};

// In statements of their own: within one, compilers may fuse a product and a sum.
inline Wide plus_square(Wide sum, float value) {
  const float square = value * value;
  const float high = sum.high + square;
  const float back = high - sum.high;
  const float lost = (sum.high - (high - back)) + (square - back);
  Wide result;
  result.high = high;
  result.low = sum.low + (lost + fma(value, value, -square));
  return result;
}

// scale / sum
inline float inverse(Wide sum, Wide scale) {
  const float lower = sum.low == sum.low ? sum.low : 0.0f;  // squares overflowed
  const float high = sum.high + lower;
  const float low = lower - (high - sum.high);
  if (high == 0.0f) return 0.0f;
  const float quotient = scale.high / high;
  const float rest = fma(-quotient, high, scale.high) + (scale.low - quotient * low);
  const float better = quotient + rest / high;
  return better == better ? better : quotient;  // where one of them is not finite
}

struct WindowReader {
  const device float* window;
  long step;
  const device long* parameters;

  // Value i of the padded window.
  inline float at(long i) const {
    const long inside = i - parameters[WINDOW_LEFT];
    return inside >= 0 && inside < parameters[WINDOW_LENGTH] ? window[inside * step] : 0.0f;
  }

  inline float number(int which) const { return as_type<float>(int(parameters[which])); }

  // A number and its rest.
  inline Wide wide(int which) const {
    Wide value;
    value.high = number(which);
    value.low = number(which + 1);
    return value;
  }

  inline float scaled(long i) const {
    const Wide factor = wide(WINDOW_FACTOR);
    const float value = at(i), rounded = value * factor.high;
    const float better = fma(value, factor.high, value * factor.low);
    return better == better ? better : rounded;  // an infinite value
  }
};

// Column `i` of the rows: a sample of each hop.
struct EnvelopeColumn {
  WindowReader reader;
  int i, hop, overlap;
  long frames;

  // Of the squares that lie over a sample of row r. Some loads are under way at once: a thread
  // waits for them, and for little else; a copy of the code for each would be fetched for one run.
  inline Wide sum(int r) const {
    const int most = frames < overlap ? int(frames) : overlap;
    const int last = r < overlap ? r : overlap - 1;
    Wide found;
    found.high = found.low = 0.0f;
#pragma unroll 2
    for (int piece = r < most ? 0 : r - most + 1; piece <= last; ++piece) {
      found = plus_square(found, reader.at(long(piece) * hop + i));
    }
    return found;
  }

  // The row of a hop.
  inline int row(long number) const {
    if (number < overlap - 1) return int(number);
    if (number < frames) return overlap - 1;
    return int(frames < overlap ? number : number - frames + overlap);
  }

  // Whether a row is below the threshold at a sample that is kept.
  inline bool vanishes() const {
    const device long* given = reader.parameters;
    const long first = given[WINDOW_START_HOPS] + (i < given[WINDOW_START_REST] ? 1 : 0);
    const long end = given[WINDOW_END_HOPS] + (i < given[WINDOW_END_REST] ? 1 : 0);
    // From row to row one more square comes in, until all have, and then one goes: the least of
    // them are at the ends. Of fewer frames squares come and go at once.
    const long step = frames < overlap || end - first < 2 ? 1 : end - 1 - first;
#pragma unroll 1
    for (long number = first; number < end; number += step) {
      if (sum(row(number)).high < reader.number(WINDOW_THRESHOLD)) return true;
    }
    return false;
  }
};

inline void prepare_window(const device float* window, long step, const device long* parameters,
                           device float* prepared, device float* vanishes, uint thread_index) {
  WindowReader reader;
  reader.window = window;
  reader.step = step;
  reader.parameters = parameters;
  EnvelopeColumn column;
  column.reader = reader;
  column.hop = int(parameters[WINDOW_HOP]);
  column.overlap = int(parameters[WINDOW_OVERLAP]);
  column.frames = parameters[WINDOW_FRAMES];
  const uint verdicts = column.hop > 0 ? uint(column.hop) : 1;
  if (thread_index < verdicts) {
    column.i = int(thread_index);
    vanishes[thread_index] = column.hop > 0 && column.vanishes() ? 1.0f : 0.0f;
    return;
  }
  const uint at = thread_index - verdicts, rows = uint(parameters[WINDOW_ROWS]);
  if (at < rows) {
    prepared[at] = reader.scaled(at);
    return;
  }
  column.i = int((at - rows) % verdicts);
  prepared[at] = inverse(column.sum(int((at - rows) / verdicts)), reader.wide(WINDOW_SCALE));
}

}  // namespace spectro
