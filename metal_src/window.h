// What an istft reads of its real analysis window, made where the window is: the window, padded and
// scaled, and the inverse of its overlap-added square; and whether torch refuses that one.
//
// NumPy:  full = np.pad(window, (left, n_fft - left - length)); scaled = full * factor
//         q = np.pad(full ** 2, (0, overlap * hop - n_fft)).reshape(overlap, hop)
//         rows[r] = q[max(0, r - frames + 1) : min(overlap, r + 1)].sum(axis=0)
//         prepared = [scaled, zeros, scale / rows where rows != 0]; envelope.py numbers the rows
//         vanishes[i]: a row is below the threshold at a kept sample of column i
// Grid:   thread i makes value i of the window and column i of the rows. No barriers.
// Limits: hop 0 asks for the window alone, and a verdict of 0. Sums carry some 48 bits (squares split by fma, sums by
//         Knuth's two-sum), so their inverses are float64's, rounded, or next to it.
#pragma once

namespace spectro {

// ROWS is where the rows begin in `prepared`; what follows are bits of floats, a REST what its
// predecessor lacks of a double.
enum WindowParameter {
  WINDOW_LENGTH,
  WINDOW_LEFT,
  WINDOW_N_FFT,
  WINDOW_HOP,
  WINDOW_FRAMES,
  WINDOW_OVERLAP,
  WINDOW_START,
  WINDOW_KEPT,
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

struct EnvelopeColumn {
  WindowReader reader;
  long i;
  device float* rows;
  bool vanishes;

  inline Wide plus_piece(Wide sum, long piece) const {
    const long at = piece * reader.parameters[WINDOW_HOP] + i;
    if (at < reader.parameters[WINDOW_N_FFT]) sum = plus_square(sum, reader.at(at));
    return sum;
  }

  // Row r is that of hops first ... last.
  inline void put(long r, Wide sum, long first, long last) {
    const long hop = reader.parameters[WINDOW_HOP], start = reader.parameters[WINDOW_START];
    rows[r * hop + i] = inverse(sum, reader.wide(WINDOW_SCALE));
    const long reaches = start > i ? (start - i + hop - 1) / hop : 0;
    const long kept = reaches > first ? reaches : first;
    const bool is_kept = kept <= last && kept * hop + i < start + reader.parameters[WINDOW_KEPT];
    vanishes = vanishes || (is_kept && sum.high < reader.number(WINDOW_THRESHOLD));
  }

  inline void put_all() {
    const long frames = reader.parameters[WINDOW_FRAMES];
    const long overlap = reader.parameters[WINDOW_OVERLAP];
    if (frames < overlap) {
      for (long r = 0; r < frames + overlap - 1; ++r) put(r, sum_of(r - frames + 1, r), r, r);
      return;
    }
    Wide sum = none();
    for (long r = 0; r < overlap; ++r) {
      sum = plus_piece(sum, r);
      put(r, sum, r, r + 1 < overlap ? r : frames - 1);
    }
    sum = none();
    for (long piece = overlap - 1; piece > 0; --piece) {
      sum = plus_piece(sum, piece);
      put(piece + overlap - 1, sum, piece + frames - 1, piece + frames - 1);
    }
  }

  static inline Wide none() {
    Wide zero;
    zero.high = 0.0f;
    zero.low = 0.0f;
    return zero;
  }

  inline Wide sum_of(long first, long last) const {
    Wide sum = none();
    const long overlap = reader.parameters[WINDOW_OVERLAP];
    for (long piece = first > 0 ? first : 0; piece <= last && piece < overlap; ++piece) {
      sum = plus_piece(sum, piece);
    }
    return sum;
  }
};

inline void prepare_window(const device float* window, long step, const device long* parameters,
                           device float* prepared, device float* vanishes, uint i) {
  WindowReader reader;
  reader.window = window;
  reader.step = step;
  reader.parameters = parameters;
  if (long(i) < parameters[WINDOW_ROWS]) prepared[i] = reader.scaled(i);
  if (parameters[WINDOW_HOP] == 0 && i == 0) vanishes[0] = 0.0f;
  if (long(i) >= parameters[WINDOW_HOP]) return;
  EnvelopeColumn column;
  column.reader = reader;
  column.i = i;
  column.rows = prepared + parameters[WINDOW_ROWS];
  column.vanishes = false;
  column.put_all();
  vanishes[i] = column.vanishes ? 1.0f : 0.0f;
}

}  // namespace spectro
