// Overlap-add of a walk: what a thread keeps in registers while its group goes from round to round.
//
// NumPy:  a round has the frames m0 ... m0 + FRAMES - 1 in threadgroup memory; with h counting hops
//         from m0, hop h receives sum over k of window[k*HOP : (k+1)*HOP] * y[m0 + h - k] piece k.
//         Walking forward, hops 0 ... FRAMES - 1 are complete then and the OVERLAP - 1 behind them
//         are carried into the next round; walking backward, hops OVERLAP - 1 ... are complete and
//         the OVERLAP - 1 before them are carried.
//         The inverse of the envelope is of the squares of those pieces: the same for all hops that
//         OVERLAP frames lie over, and at the ends of the frames that there are.
// Grid:   hop h, unit o of it belongs to the thread with h % ABREAST == stripe and o % GROUP ==
//         unit (ABREAST == 1) or o == unit, in every round, so that sums, window and envelope stay
//         with it. No barriers.
// Limits: HOP <= 2 POINTS; FRAMES hops advance per round; positions in a row have 32 bits.
#pragma once

#include "fft.h"
#include "overlap_add.h"
#include "envelope.h"

namespace spectro {

constexpr int power_of_two_below(int n) { return n < 2 ? 1 : 2 * power_of_two_below(n / 2); }
constexpr int dividing_power(int power, int n) {
  return n % power == 0 ? power : dividing_power(power / 2, n);
}

// What a thread adds at once: two neighbouring samples where everything is even, or one.
template <int WIDTH> struct Unit {
  typedef float Type;
  static inline float all(float value) { return value; }
  template <class Weights> static inline float piece(Weights window, uint unit) {
    return window.at(unit);
  }
  static inline float inverse_of(float squares, float factor) {
    return inverse(squares, factor);
  }

  // sum += piece * what is at a place of the exchange
  template <int PART>
  static inline void add(float piece, const threadgroup float2* exchange, uint bytes,
                         thread float& sum) {
    sum = fma(piece, at_bytes<float>(exchange, bytes), sum);
  }
};
template <> struct Unit<2> {
  typedef float2 Type;
  static inline float2 all(float value) { return complex(value, value); }
  template <class Weights> static inline float2 piece(Weights window, uint unit) {
    return window.pair(unit);
  }
  static inline float2 inverse_of(float2 squares, float factor) {
    return complex(inverse(squares.x, factor), inverse(squares.y, factor));
  }

  // Real and imaginary parts of a point are neighbouring samples.
  template <int PART>
  static inline void add(float2 piece, const threadgroup float2* exchange, uint bytes,
                         thread float2& sum) {
    float2 value = complex(0.0f, 0.0f);
    get<PART>(exchange, bytes, value);
    if (PART != IMAGINARY_PART) sum.x = fma(piece.x, value.x, sum.x);
    if (PART != REAL_PART) sum.y = fma(piece.y, value.y, sum.y);
  }
};

// What a walk knows of its output row.
struct RunOutput {
  int begin, end;  // positions in the row that the run makes
  int start;       // padded position of the row's sample 0
  int frames;
};

// Weights: a Window.
template <class P, int HOP, int FRAMES, int WIDTH, bool ENVELOPE, bool KEEP_WINDOW, class Weights>
struct RunSums {
  typedef typename Unit<WIDTH>::Type Value;
  enum {
    N_FFT = 2 * int(P::POINTS),
    GROUP = FRAMES * int(P::THREADS),
    OVERLAP = divided_up(N_FFT, HOP),
    UNITS = HOP / WIDTH,             // of a hop
    FRAME_UNITS = N_FFT / WIDTH,
    ABREAST = UNITS >= GROUP ? 1 : dividing_power(power_of_two_below(GROUP / UNITS), FRAMES),
    OWNED = ABREAST > 1 ? 1 : divided_up(UNITS, GROUP),  // units of one hop
    STEPS = FRAMES / ABREAST,                            // that a round advances by
    CARRIED = divided_up(OVERLAP - 1, ABREAST),
    REACHED = STEPS + CARRIED,  // of hops abreast, that a round's frames touch
    WHOLE = N_FFT % HOP == 0,
    KEPT_PIECES = KEEP_WINDOW ? OVERLAP : 1,
    KEPT_UNITS = KEEP_WINDOW ? int(OWNED) : 1,
    SUMS = CARRIED > 0 ? int(CARRIED) : 1,
    UNIT_BYTES = P::HALF ? 4 : 4 * WIDTH,
    DIVIDES = ENVELOPE
  };
  static_assert(HOP % WIDTH == 0 && HOP <= N_FFT, "whole units, and no gaps");
  static_assert(!P::HALF || WIDTH == 2, "halves of a frame are its even and odd samples");

  Weights window;
  float scale;
  Value pieces[KEPT_PIECES][KEPT_UNITS];
  Value steady[OWNED];  // inverse envelope where OVERLAP frames lie over a hop
  Value carried[SUMS][OWNED];

  static inline uint stripe(uint thread_index) {
    return ABREAST > 1 ? thread_index / uint(UNITS) : 0u;
  }
  static inline uint unit(uint thread_index) {
    return ABREAST > 1 ? thread_index % uint(UNITS) : thread_index;
  }
  static inline bool owns(uint first_unit, int c) {
    return ABREAST > 1 || UNITS % GROUP == 0 || first_unit + uint(GROUP * c) < uint(UNITS);
  }
  // Whether the window has a piece k of this unit.
  static inline bool has(uint o, int k) {
    return WHOLE || k < OVERLAP - 1 || o + uint(k * UNITS) < uint(FRAME_UNITS);
  }

  inline RunSums(const thread Weights& of_window, float of_scale, uint thread_index)
      : window(of_window) {
    scale = of_scale;
    const uint first_unit = unit(thread_index);
#pragma unroll
    for (int c = 0; c < OWNED; ++c) {
      const uint o = first_unit + uint(GROUP * c);
      const bool owned = owns(first_unit, c);
#pragma unroll
      for (int k = 0; KEEP_WINDOW && k < OVERLAP; ++k) {
        pieces[KEEP_WINDOW ? k : 0][KEEP_WINDOW ? c : 0] = Unit<WIDTH>::all(0.0f);
        if (owned && has(o, k)) {
          pieces[KEEP_WINDOW ? k : 0][KEEP_WINDOW ? c : 0] =
              Unit<WIDTH>::piece(window, o + uint(k * UNITS));
        }
      }
      steady[c] = Unit<WIDTH>::all(scale);
#pragma unroll
      for (int i = 0; i < SUMS; ++i) carried[i][c] = Unit<WIDTH>::all(0.0f);
    }
  }

  // Piece k of the window for unit o, which is unit c of the thread's; zero behind the window's end.
  inline Value piece(int k, int c, uint o) const {
    if (KEEP_WINDOW) return pieces[KEEP_WINDOW ? k : 0][KEEP_WINDOW ? c : 0];
    return has(o, k) ? Unit<WIDTH>::piece(window, o + uint(k * UNITS)) : Unit<WIDTH>::all(0.0f);
  }

  // The squares of COUNT pieces from FROM on, added in pairs: of many of them digits would be lost.
  template <int FROM, int COUNT, class = void> struct SumOfSquares {
    static inline Value of(RunSums sums, int c, uint o, Value zero) {
      return SumOfSquares<FROM, COUNT / 2>::of(sums, c, o, zero) +
             SumOfSquares<FROM + COUNT / 2, COUNT - COUNT / 2>::of(sums, c, o, zero);
    }
  };
  template <int FROM, class Nothing> struct SumOfSquares<FROM, 1, Nothing> {
    static inline Value of(RunSums sums, int c, uint o, Value zero) {
      const Value value = sums.piece(FROM, c, o);
      return multiplied_added(value, value, zero);
    }
  };

  // Inverts the envelope of the hops that OVERLAP frames cover. It runs in the first round, when
  // frames are there to be added, so that nothing waits for the window before.
  inline void invert(uint thread_index) {
    const uint first_unit = unit(thread_index);
    const Value zero = Unit<WIDTH>::all(zero_from_here_on());
#pragma unroll
    for (int c = 0; c < OWNED; ++c) {
      if (!owns(first_unit, c)) continue;
      const uint o = first_unit + uint(GROUP * c);
      const Value squares = SumOfSquares<0, OVERLAP>::of(*this, c, o, zero);
      steady[c] = Unit<WIDTH>::inverse_of(squares, scale);
    }
  }

  // The inverse envelope of unit o of a hop at either end, of the frames that there are.
  inline Value inverse_at_end(int hop, int c, uint o, RunOutput output) const {
    Value squares = Unit<WIDTH>::all(0.0f);
#pragma unroll KEPT_PIECES
    for (int k = 0; k < OVERLAP; ++k) {
      if (uint(hop - k) >= uint(output.frames)) continue;
      const Value value = piece(k, c, o);
      squares = multiplied_added(value, value, squares);
    }
    return Unit<WIDTH>::inverse_of(squares, scale);
  }

  // Whether a round makes hops that fewer than OVERLAP frames lie over.
  static inline bool touches_ends(int m0, RunOutput output) {
    return ENVELOPE && (m0 < OVERLAP - 1 || m0 + FRAMES + OVERLAP - 1 > output.frames);
  }

  // Adds one round's frames, puts complete hops out and carries the others. AT_ENDS: it touches them;
  // most rounds do not, and have code of their own.
  template <bool BACKWARD, bool AT_ENDS>
  inline void add(const threadgroup float2* exchange, uint thread_index, int m0, RunOutput output,
                  device float* row) {
    if (ABREAST > 1 && stripe(thread_index) >= uint(ABREAST)) return;
#pragma unroll
    for (int c = 0; c < OWNED; ++c) {
      if (!owns(unit(thread_index), c)) continue;
#pragma unroll
      for (int visited = 0; visited < REACHED; ++visited) {
        // Old sums are read before new ones replace them.
        const int j = BACKWARD ? REACHED - 1 - visited : visited;
        Value sum = before<BACKWARD>(j, c);
        add_pieces<BOTH_PARTS>(exchange, thread_index, c, j, sum);
        settle<BACKWARD, AT_ENDS>(sum, thread_index, c, j, m0, output, row);
      }
    }
  }

  // The same in two halves: all sums so far, the frames' real or imaginary parts, and the end.
  template <bool BACKWARD> inline void collect(thread Value (&all)[REACHED][OWNED]) const {
#pragma unroll
    for (int c = 0; c < OWNED; ++c) {
#pragma unroll
      for (int j = 0; j < REACHED; ++j) all[j][c] = before<BACKWARD>(j, c);
    }
  }

  template <int PART>
  inline void add_part(const threadgroup float2* exchange, uint thread_index,
                       thread Value (&all)[REACHED][OWNED]) const {
    if (ABREAST > 1 && stripe(thread_index) >= uint(ABREAST)) return;
#pragma unroll
    for (int c = 0; c < OWNED; ++c) {
      if (!owns(unit(thread_index), c)) continue;
#pragma unroll
      for (int j = 0; j < REACHED; ++j) add_pieces<PART>(exchange, thread_index, c, j, all[j][c]);
    }
  }

  template <bool BACKWARD, bool AT_ENDS>
  inline void settle_all(const thread Value (&all)[REACHED][OWNED], uint thread_index, int m0,
                         RunOutput output, device float* row) {
    if (ABREAST > 1 && stripe(thread_index) >= uint(ABREAST)) return;
#pragma unroll
    for (int c = 0; c < OWNED; ++c) {
      if (!owns(unit(thread_index), c)) continue;
#pragma unroll
      for (int j = 0; j < REACHED; ++j) {
        settle<BACKWARD, AT_ENDS>(all[j][c], thread_index, c, j, m0, output, row);
      }
    }
  }

  // What the rounds before have added to hop ABREAST * j + stripe.
  template <bool BACKWARD> inline Value before(int j, int c) const {
    const int i = BACKWARD ? j - STEPS : j;
    return i >= 0 && i < CARRIED ? carried[i >= 0 && i < CARRIED ? i : 0][c]
                                 : Unit<WIDTH>::all(0.0f);
  }

  // Adds to `sum` what the round's frames have at hop ABREAST * j + stripe.
  template <int PART>
  inline void add_pieces(const threadgroup float2* exchange, uint thread_index, int c, int j,
                         thread Value& sum) const {
    const uint beside = stripe(thread_index), first_unit = unit(thread_index);
    const uint o = first_unit + uint(GROUP * c);
    const uint place = beside * uint(P::FRAME_BYTES) + first_unit * uint(UNIT_BYTES);
#pragma unroll
    for (int k = 0; k < OVERLAP; ++k) {
      const int frame = ABREAST * j - k;  // of stripe 0
      if (frame + ABREAST <= 0 || frame >= FRAMES) continue;
      if (ABREAST > 1 && uint(frame + int(beside)) >= uint(FRAMES)) continue;
      if (!has(o, k)) continue;
      const int within = frame * int(P::FRAME_BYTES) + (k * UNITS + GROUP * c) * UNIT_BYTES;
      Unit<WIDTH>::template add<PART>(piece(k, c, o), exchange, place + uint(within), sum);
    }
  }

  // Puts out the sum of hop ABREAST * j + stripe, or carries it.
  template <bool BACKWARD, bool AT_ENDS>
  inline void settle(Value sum, uint thread_index, int c, int j, int m0, RunOutput output,
                     device float* row) {
    const int hop = ABREAST * j + int(stripe(thread_index));
    const bool complete = BACKWARD ? hop >= OVERLAP - 1 && hop < FRAMES + OVERLAP - 1 : j < STEPS;
    if (complete) {
      const uint o = unit(thread_index) + uint(GROUP * c);
      put_out<AT_ENDS>(sum, m0 + hop, o, c, output, row);
    }
    const int i = BACKWARD ? j : j - STEPS;
    if (i >= 0 && i < CARRIED) {
      if (BACKWARD && complete) sum = Unit<WIDTH>::all(0.0f);
      carried[i >= 0 && i < CARRIED ? i : 0][c] = sum;
    }
  }

  template <bool AT_ENDS>
  inline void put_out(Value sum, int hop, uint o, int c, RunOutput output, device float* row) {
    const int position = hop * HOP + int(o) * WIDTH - output.start;
    if (uint(position - output.begin) >= uint(output.end - output.begin)) return;
    Value factor = steady[c];
    if (AT_ENDS && (hop < OVERLAP - 1 || hop > output.frames - 1)) {
      factor = inverse_at_end(hop, c, o, output);
    }
    sum = by_parts(sum, factor);
    *(device Value*)(row + position) = sum;
  }
};

}  // namespace spectro
