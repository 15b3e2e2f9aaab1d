// Vectors, and packed ones, which need no more alignment than their components.
#pragma once

#define MTL_VECTORS(T)                                                             \
  typedef T T##2 __attribute__((ext_vector_type(2)));                              \
  typedef T T##3 __attribute__((ext_vector_type(3)));                              \
  typedef T T##4 __attribute__((ext_vector_type(4)));                              \
  typedef T packed_##T##2 __attribute__((ext_vector_type(2), aligned(sizeof(T)))); \
  MTL_PACKED3(T)                                                                   \
  typedef T packed_##T##4 __attribute__((ext_vector_type(4), aligned(sizeof(T))));

#ifdef __OPENCL_CPP_VERSION__
// clang's vectors of three are as large as those of four, so that this one is a struct.
#define MTL_PACKED3(T)                                                             \
  struct packed_##T##3 {                                                           \
    T x, y, z;                                                                     \
    packed_##T##3() = default;                                                     \
    packed_##T##3(T##3 v) : x(v.x), y(v.y), z(v.z) {}                              \
    packed_##T##3(T a, T b, T c) : x(a), y(b), z(c) {}                             \
    operator T##3() const { return T##3{x, y, z}; }                                \
    T& operator[](int i) { return (&x)[i]; }                                       \
    T operator[](int i) const { return (&x)[i]; }                                  \
  };
#else
// Only read: its size is that of a vector of four.
#define MTL_PACKED3(T) \
  typedef T packed_##T##3 __attribute__((ext_vector_type(3), aligned(sizeof(T))));
#endif

MTL_VECTORS(float)
MTL_VECTORS(half)
MTL_VECTORS(char)
MTL_VECTORS(uchar)
MTL_VECTORS(short)
MTL_VECTORS(ushort)
MTL_VECTORS(int)
MTL_VECTORS(uint)
MTL_VECTORS(long)
MTL_VECTORS(ulong)
#undef MTL_VECTORS
#undef MTL_PACKED3

// Vectors of bool: OpenCL has none, and C++'s have no components. These have 0 or 1 in each, in
// OpenCL the size of Metal's, and in C++ a type that is no other's.
#ifdef __OPENCL_CPP_VERSION__
typedef uchar mtl_truth;
#else
typedef wchar_t mtl_truth;
#endif
typedef mtl_truth bool2 __attribute__((ext_vector_type(2)));
typedef mtl_truth bool3 __attribute__((ext_vector_type(3)));
typedef mtl_truth bool4 __attribute__((ext_vector_type(4)));
