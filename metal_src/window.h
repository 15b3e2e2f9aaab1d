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

// Loops are not unrolled: that made four times the code, to be fetched for one run.
struct EnvelopeColumn {
  WindowReader reader;
  int i, hop, overlap, n_fft;
  long kept_from, kept_to;  // hops with a kept sample here, the last one excluded
  device float* rows;
  bool vanishes;

  inline Wide plus_piece(Wide sum, int piece) const {
    const int at = piece * hop + i;
    if (at < n_fft) sum = plus_square(sum, reader.at(at));
    return sum;
  }

  // Row r is that of hops first ... last.
  inline void put(int r, Wide sum, long first, long last) {
    rows[long(r) * hop + i] = inverse(sum, reader.wide(WINDOW_SCALE));
    const long from = first > kept_from ? first : kept_from;
    const long to = last + 1 < kept_to ? last + 1 : kept_to;
    vanishes = vanishes || (from < to && sum.high < reader.number(WINDOW_THRESHOLD));
  }

  // Fewer frames than lie over a sample elsewhere.
  inline void put_few(int frames) {
#pragma unroll 1
    for (int r = 0; r < frames + overlap - 1; ++r) {
      Wide sum = none();
#pragma unroll 1
      for (int piece = r < frames ? 0 : r - frames + 1; piece <= r && piece < overlap; ++piece) {
        sum = plus_piece(sum, piece);
      }
      put(r, sum, r, r);
    }
  }

  // From the first frame on, then from the last one back.
  inline void put_many(long frames) {
#pragma unroll 1
    for (int side = 0; side < 2; ++side) {
      Wide sum = none();
#pragma unroll 1
      for (int step = 0; step < overlap - side; ++step) {
        const int piece = side == 0 ? step : overlap - 1 - step;
        const int r = side == 0 ? step : piece + overlap - 1;
        const long hops = side == 0 ? r : piece + frames - 1;
        sum = plus_piece(sum, piece);
        put(r, sum, hops, side == 0 && r == overlap - 1 ? frames - 1 : hops);
      }
    }
  }

  static inline Wide none() {
    Wide zero;
    zero.high = 0.0f;
    zero.low = 0.0f;
    return zero;
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
  column.i = int(i);
  column.hop = int(parameters[WINDOW_HOP]);
  column.overlap = int(parameters[WINDOW_OVERLAP]);
  column.n_fft = int(parameters[WINDOW_N_FFT]);
  column.kept_from =
      parameters[WINDOW_START_HOPS] + (long(i) < parameters[WINDOW_START_REST] ? 1 : 0);
  column.kept_to = parameters[WINDOW_END_HOPS] + (long(i) < parameters[WINDOW_END_REST] ? 1 : 0);
  column.rows = prepared + parameters[WINDOW_ROWS];
  column.vanishes = false;
  const long frames = parameters[WINDOW_FRAMES];
  if (frames < column.overlap) {
    column.put_few(int(frames));
  } else {
    column.put_many(frames);
  }
  vanishes[i] = column.vanishes ? 1.0f : 0.0f;
}

}  // namespace spectro
