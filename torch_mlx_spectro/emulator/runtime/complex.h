// MLX's element type of complex arrays, and its function for strided elements (utils.h of MLX).
#pragma once

template <class T> struct complex_t {
  typedef T value_type;
  T real;
  T imag;
  complex_t() = default;
  constexpr complex_t(T r, T i) : real(r), imag(i) {}
  constexpr complex_t(T r) : real(r), imag(0) {}
  constexpr complex_t(metal::vec<T, 2> v) : real(v.x), imag(v.y) {}
  constexpr complex_t(const complex_t&) = default;
  // A reference of the generic address space does not reach constant memory.
  constexpr complex_t(const constant complex_t& z) : real(z.real), imag(z.imag) {}
#ifdef __OPENCL_CPP_VERSION__
  complex_t& operator=(const complex_t&) = default;
#else
  constexpr complex_t(const device complex_t& z) : real(z.real), imag(z.imag) {}
  constexpr complex_t(const threadgroup complex_t& z) : real(z.real), imag(z.imag) {}
#endif
  constexpr operator metal::vec<T, 2>() const { return metal::vec<T, 2>{real, imag}; }
};
typedef complex_t<float> complex64_t;

#define MTL_COMPLEX(op, r, i)                                                         \
  template <class T> inline complex_t<T> operator op(complex_t<T> a, complex_t<T> b) { \
    return complex_t<T>(r, i);                                                        \
  }
MTL_COMPLEX(+, a.real + b.real, a.imag + b.imag)
MTL_COMPLEX(-, a.real - b.real, a.imag - b.imag)
MTL_COMPLEX(*, a.real* b.real - a.imag * b.imag, a.real* b.imag + a.imag * b.real)
#undef MTL_COMPLEX
template <class T> inline complex_t<T> operator-(complex_t<T> a) { return {-a.real, -a.imag}; }
template <class T> inline bool operator==(complex_t<T> a, complex_t<T> b) {
  return a.real == b.real && a.imag == b.imag;
}

inline int64_t elem_to_loc(uint element, const constant int* shape,
                           const constant int64_t* strides, int ndim) {
  int64_t location = 0;
  for (int i = ndim - 1; i >= 0 && element > 0; --i) {
    location += int64_t(element % uint(shape[i])) * strides[i];
    element /= uint(shape[i]);
  }
  return location;
}
