// Discrete Fourier transforms of 1 ... 10, 12, 15 and 16 points in registers.
//
// NumPy:  Radix<R>::transform(v)            v[:] = np.fft.fft(v)
//         Radix<R>::transform(v, w)         v[:] = np.fft.fft(v * z ** np.arange(R))
//         where w holds the powers of z that Radix<R> needs: z, z^2, z^4, z^8 (R a power of two),
//         else z, z^2, ..., z^(R - 1).
// Limits: nothing but registers; 16 points need 16 float2 and as many temporaries.
//
// Powers of two split into even and odd inputs (decimation in time: Cooley and Tukey 1965); the
// twiddle factors are folded into the butterflies, so that they cost no separate multiplications.
#pragma once

namespace spectro {

template <int R> struct Radix;

constexpr bool is_power_of_two(int n) { return (n & (n - 1)) == 0; }

constexpr int log2_of(int n) {
  int exponent = 0;
  while ((1 << exponent) < n) ++exponent;
  return exponent;
}

// Number of twiddle factors that Radix<R> reads for one butterfly.
constexpr int factors_of(int R) { return is_power_of_two(R) ? log2_of(R) : R - 1; }

// cos(2 pi k / 16) for k = 0 ... 4.
constexpr float cosine_of_sixteenth(int k) {
  return k == 0   ? 1.0f
         : k == 1 ? 0.92387953251128675613f
         : k == 2 ? 0.70710678118654752440f
         : k == 3 ? 0.38268343236508977173f
                  : 0.0f;
}

template <> struct Radix<1> {
  static inline void transform(thread float2 (&)[1]) {}
  static inline void transform(thread float2 (&)[1], const thread float2*) {}
};

template <> struct Radix<2> {
  static inline void transform(thread float2 (&v)[2]) {
    float2 a = v[0];
    v[0] = a + v[1];
    v[1] = a - v[1];
  }
  static inline void transform(thread float2 (&v)[2], const thread float2* w) {
    combine(v[0], v[1], w[0], v[0], v[1]);
  }
};

// R = 4, 8, 16: two transforms of R / 2 points, then R / 2 butterflies with the roots of unity.
template <int R> struct PowerOfTwo {
  enum { HALF = R / 2, QUARTER = R / 4, STEP = 16 / R };

  static inline void split(thread float2 (&v)[R], thread float2 (&even)[HALF],
                           thread float2 (&odd)[HALF]) {
#pragma unroll
    for (int i = 0; i < HALF; ++i) {
      even[i] = v[2 * i];
      odd[i] = v[2 * i + 1];
    }
  }

  static inline void transform(thread float2 (&v)[R]) {
    float2 even[HALF], odd[HALF];
    split(v, even, odd);
    Radix<HALF>::transform(even);
    Radix<HALF>::transform(odd);
    float2 turned = rotated(odd[QUARTER]);
    v[0] = even[0] + odd[0];
    v[HALF] = even[0] - odd[0];
    v[QUARTER] = even[QUARTER] + turned;
    v[QUARTER + HALF] = even[QUARTER] - turned;
#pragma unroll
    for (int k = 1; k < QUARTER; ++k) {
      float2 root = complex(cosine_of_sixteenth(STEP * k), -cosine_of_sixteenth(4 - STEP * k));
      combine(even[k], odd[k], root, v[k], v[k + HALF]);
      combine(even[k + QUARTER], odd[k + QUARTER], rotated(root), v[k + QUARTER],
              v[k + QUARTER + HALF]);
    }
  }

  static inline void transform(thread float2 (&v)[R], const thread float2* w) {
    float2 even[HALF], odd[HALF];
    split(v, even, odd);
    Radix<HALF>::transform(even, w + 1);
    Radix<HALF>::transform(odd, w + 1);
#pragma unroll
    for (int k = 0; k < QUARTER; ++k) {
      float2 root = complex(cosine_of_sixteenth(STEP * k), -cosine_of_sixteenth(4 - STEP * k));
      float2 factor = k == 0 ? w[0] : product(w[0], root);
      combine(even[k], odd[k], factor, v[k], v[k + HALF]);
      combine(even[k + QUARTER], odd[k + QUARTER], rotated(factor), v[k + QUARTER],
              v[k + QUARTER + HALF]);
    }
  }
};

template <> struct Radix<4> : PowerOfTwo<4> {};
template <> struct Radix<8> : PowerOfTwo<8> {};
template <> struct Radix<16> : PowerOfTwo<16> {};

// Twiddle factors of the odd radices: one multiplication each, then the plain transform.
template <int R> inline void multiply_factors(thread float2 (&v)[R], const thread float2* w) {
#pragma unroll
  for (int r = 1; r < R; ++r) v[r] = product(v[r], w[r - 1]);
}

// u = middle - i turn and v = middle + i turn: outputs k and R - k of an odd radix.
inline void mirror_pair(float2 middle, float2 turn, thread float2& u, thread float2& v) {
  u = complex(middle.x + turn.y, middle.y - turn.x);
  v = complex(middle.x - turn.y, middle.y + turn.x);
}

// An odd prime R by sums and differences of mirrored inputs. c and s hold cos and sin of
// 2 pi j / R for j = 1 ... (R - 1) / 2.
template <int R> struct OddPrime {
  enum { HALF = (R - 1) / 2 };

  static inline void transform(thread float2 (&v)[R], const thread float (&c)[HALF],
                               const thread float (&s)[HALF]) {
    float2 sum[HALF], difference[HALF], total = v[0];
#pragma unroll
    for (int j = 0; j < HALF; ++j) {
      sum[j] = v[j + 1] + v[R - 1 - j];
      difference[j] = v[j + 1] - v[R - 1 - j];
      total = total + sum[j];
    }
    float2 first = v[0];
    v[0] = total;
#pragma unroll
    for (int k = 1; k <= HALF; ++k) {
      float2 middle = first, turn = complex(0.0f, 0.0f);
#pragma unroll
      for (int j = 1; j <= HALF; ++j) {
        int angle = (j * k) % R;
        bool mirrored = angle > HALF;
        float cosine = c[(mirrored ? R - angle : angle) - 1];
        float sine = s[(mirrored ? R - angle : angle) - 1];
        sine = mirrored ? -sine : sine;
        middle = complex(fma(cosine, sum[j - 1].x, middle.x), fma(cosine, sum[j - 1].y, middle.y));
        turn = complex(fma(sine, difference[j - 1].x, turn.x),
                       fma(sine, difference[j - 1].y, turn.y));
      }
      mirror_pair(middle, turn, v[k], v[R - k]);
    }
  }
};

template <> struct Radix<3> {
  static inline void transform(thread float2 (&v)[3]) {
    const float c[1] = {-0.5f};
    const float s[1] = {0.86602540378443864676f};
    OddPrime<3>::transform(v, c, s);
  }
  static inline void transform(thread float2 (&v)[3], const thread float2* w) {
    multiply_factors<3>(v, w);
    transform(v);
  }
};

template <> struct Radix<5> {
  static inline void transform(thread float2 (&v)[5]) {
    const float c[2] = {0.30901699437494742410f, -0.80901699437494742410f};
    const float s[2] = {0.95105651629515357212f, 0.58778525229247312917f};
    OddPrime<5>::transform(v, c, s);
  }
  static inline void transform(thread float2 (&v)[5], const thread float2* w) {
    multiply_factors<5>(v, w);
    transform(v);
  }
};

template <> struct Radix<7> {
  static inline void transform(thread float2 (&v)[7]) {
    const float c[3] = {0.62348980185873353053f, -0.22252093395631440429f,
                        -0.90096886790241912624f};
    const float s[3] = {0.78183148246802980871f, 0.97492791218182360702f,
                        0.43388373911755812048f};
    OddPrime<7>::transform(v, c, s);
  }
  static inline void transform(thread float2 (&v)[7], const thread float2* w) {
    multiply_factors<7>(v, w);
    transform(v);
  }
};

// Nine points as three by three: columns, roots of unity, rows.
template <> struct Radix<9> {
  static inline void transform(thread float2 (&v)[9]) {
    const float2 w1 = complex(0.76604444311897803520f, -0.64278760968653932632f);
    const float2 w2 = complex(0.17364817766693034885f, -0.98480775301220805937f);
    const float2 w4 = complex(-0.93969262078590838405f, -0.34202014332566873304f);
    float2 column[3][3];
#pragma unroll
    for (int i = 0; i < 3; ++i) {
#pragma unroll
      for (int j = 0; j < 3; ++j) column[i][j] = v[3 * j + i];
      Radix<3>::transform(column[i]);
    }
    column[1][1] = product(column[1][1], w1);
    column[1][2] = product(column[1][2], w2);
    column[2][1] = product(column[2][1], w2);
    column[2][2] = product(column[2][2], w4);
#pragma unroll
    for (int j = 0; j < 3; ++j) {
      float2 row[3] = {column[0][j], column[1][j], column[2][j]};
      Radix<3>::transform(row);
#pragma unroll
      for (int i = 0; i < 3; ++i) v[3 * i + j] = row[i];
    }
  }
  static inline void transform(thread float2 (&v)[9], const thread float2* w) {
    multiply_factors<9>(v, w);
    transform(v);
  }
};

// A B points of coprime A and B as A by B, without roots of unity between (Good 1958, Thomas 1963).
template <int A, int B> struct Coprime {
  enum { R = A * B };

  // The output that is k mod A and l mod B.
  static constexpr int output(int k, int l) {
    int index = l;
    while (index % A != k) index += B;
    return index;
  }

  static inline void transform(thread float2 (&v)[R]) {
    float2 rows[A][B];
#pragma unroll
    for (int a = 0; a < A; ++a) {
#pragma unroll
      for (int b = 0; b < B; ++b) rows[a][b] = v[(B * a + A * b) % R];
      Radix<B>::transform(rows[a]);
    }
#pragma unroll
    for (int b = 0; b < B; ++b) {
      float2 column[A];
#pragma unroll
      for (int a = 0; a < A; ++a) column[a] = rows[a][b];
      Radix<A>::transform(column);
#pragma unroll
      for (int a = 0; a < A; ++a) v[output(a, b)] = column[a];
    }
  }
  static inline void transform(thread float2 (&v)[R], const thread float2* w) {
    multiply_factors<R>(v, w);
    transform(v);
  }
};

template <> struct Radix<6> : Coprime<2, 3> {};
template <> struct Radix<10> : Coprime<2, 5> {};
template <> struct Radix<12> : Coprime<4, 3> {};
template <> struct Radix<15> : Coprime<3, 5> {};

}  // namespace spectro
