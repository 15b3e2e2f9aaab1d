// Complex numbers as float2 (x real, y imaginary), in registers.
//
// NumPy:  rotated(z) == -1j * z;  combine: u, v = a + w * o, a - w * o
// Limits: none. No memory is touched here.
#pragma once

namespace spectro {

inline float2 complex(float real, float imaginary) {
  float2 z;
  z.x = real;
  z.y = imaginary;
  return z;
}

inline float2 conjugate(float2 z) { return complex(z.x, -z.y); }

// Exchanging the parts before and after a forward transform makes it the inverse one.
inline float2 exchanged(float2 z) { return complex(z.y, z.x); }

// -i z
inline float2 rotated(float2 z) { return complex(z.y, -z.x); }

inline float2 product(float2 a, float2 b) {
  return complex(fma(-a.y, b.y, a.x * b.x), fma(a.y, b.x, a.x * b.y));
}
inline float2 product(float2 a, float b) { return complex(a.x * b, a.y * b); }
inline float2 product(float a, float2 b) { return complex(a * b.x, a * b.y); }
inline float product(float a, float b) { return a * b; }

// a b + c, part by part.
inline float multiplied_added(float a, float b, float c) { return fma(a, b, c); }
inline float2 multiplied_added(float2 a, float2 b, float2 c) {
  return complex(fma(a.x, b.x, c.x), fma(a.y, b.y, c.y));
}
inline float by_parts(float a, float b) { return a * b; }
inline float2 by_parts(float2 a, float2 b) { return complex(a.x * b.x, a.y * b.y); }

inline float2 as_complex(float2 z) { return z; }
inline float2 as_complex(float x) { return complex(x, 0.0f); }

inline void set_zero(thread float& x) { x = 0.0f; }
inline void set_zero(thread float2& z) { z = complex(0.0f, 0.0f); }

// u = a + w o and v = a - w o, in six fused multiply-adds: v = 2 a - u.
inline void combine(float2 a, float2 o, float2 w, thread float2& u, thread float2& v) {
  u.x = fma(-w.y, o.y, fma(w.x, o.x, a.x));
  u.y = fma(w.y, o.x, fma(w.x, o.y, a.y));
  v.x = fma(2.0f, a.x, -u.x);
  v.y = fma(2.0f, a.y, -u.y);
}

}  // namespace spectro
