// The Metal language as far as ordinary kernels use it, for two compilers' modes of clang.
//
// C++ for OpenCL makes the code that runs: it has Metal's address spaces under other names, and
// refuses double, function pointers, virtual functions and variable-length arrays. Strict C++14
// only reads the text (dialect.h has what differs). What needs the machine (barriers, lanes of a
// SIMD group, atomics) is an extern "C" call into runtime.cpp, which the kernel's library is
// linked against.
#pragma once
#pragma clang system_header

#include "dialect.h"

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
typedef __SIZE_TYPE__ size_t;
typedef __PTRDIFF_TYPE__ ptrdiff_t;
typedef signed char int8_t;
typedef short int16_t;
typedef int int32_t;
typedef long int64_t;
typedef uchar uint8_t;
typedef ushort uint16_t;
typedef uint uint32_t;
typedef ulong uint64_t;
typedef half float16_t;

#include "vectors.h"

struct mtl_thread {
  uint grid[3], group_nominal[3], group[3], groups[3];
  uint in_group[3], group_in_grid[3];
  uint index, lane, simd, simds, simds_nominal;
};

enum mtl_memory { mtl_none = 0, mtl_device = 1, mtl_threadgroup = 2, mtl_texture = 4 };

extern "C" {
void mtl_threadgroup_barrier(uint flags, int line, int column) __attribute__((convergent));
void mtl_simdgroup_barrier(uint flags, int line, int column) __attribute__((convergent));
uint mtl_gather(const void* value, void* all, uint size, int line, int column)
    __attribute__((convergent));
uint mtl_lane();
void mtl_inactive_lane(uint lane, int line, int column);
void* mtl_threadgroup_array(uint index, ulong size, ulong alignment, int line);
void mtl_atomic(const volatile void* address, uint size);
}

#define MTL_SITE int line = __builtin_LINE(), int column = __builtin_COLUMN()

namespace metal {

template <class T, int N> using vec = T __attribute__((ext_vector_type(N)));

template <class T, T V> struct integral_constant { static constexpr constant T value = V; };
typedef integral_constant<bool, true> true_type;
typedef integral_constant<bool, false> false_type;
template <class A, class B> struct is_same : false_type {};
template <class A> struct is_same<A, A> : true_type {};
template <class A, class B> static constexpr constant bool is_same_v = __is_same(A, B);
template <class A, class B> static constexpr constant bool is_convertible_v =
    __is_convertible_to(A, B);
template <class T> static constexpr constant bool is_floating_point_v =
    __is_same(T, float) || __is_same(T, half);
template <class T> static constexpr constant bool is_integral_v = __is_integral(T);
template <bool, class T = void> struct enable_if {};
template <class T> struct enable_if<true, T> { typedef T type; };
template <bool B, class T = void> using enable_if_t = typename enable_if<B, T>::type;
template <bool B, class T, class F> struct conditional { typedef T type; };
template <class T, class F> struct conditional<false, T, F> { typedef F type; };
template <bool B, class T, class F> using conditional_t = typename conditional<B, T, F>::type;

template <class T> struct mtl_vector {
  static constexpr bool IS = false;
  enum { COUNT = 1 };
  typedef T Element;
};
template <class T, int N> struct mtl_vector<T __attribute__((ext_vector_type(N)))> {
  static constexpr bool IS = true;
  enum { COUNT = N };
  typedef T Element;
};

// A value as what it is in a vector of E: a scalar, or a shorter vector.
template <class E, class A> inline constexpr auto mtl_part(A a) {
  if constexpr (mtl_vector<A>::IS) {
    return __builtin_convertvector(a, vec<E, mtl_vector<A>::COUNT>);
  } else {
    return static_cast<E>(a);
  }
}

// What float2(...) becomes: clang's own functional cast takes one value.
template <class V, class A> inline constexpr V mtl_make(A a) {
  if constexpr (mtl_vector<A>::IS) {
    return __builtin_convertvector(a, V);
  } else if constexpr (__is_class(A)) {
    return static_cast<V>(a);
  } else {
    return V(static_cast<typename mtl_vector<V>::Element>(a));
  }
}
template <class V, class... A> inline constexpr V mtl_make(A... a) {
  typedef typename mtl_vector<V>::Element E;
  static_assert((int(mtl_vector<A>::COUNT) + ...) == int(mtl_vector<V>::COUNT),
                "as many values as the vector has elements");
#ifdef __OPENCL_CPP_VERSION__
  return V{mtl_part<E>(a)...};
#else
  (void(mtl_part<E>(a)), ...);  // C++14 has no list of shorter vectors; nothing is computed there
  return V{};
#endif
}

// What a comparison of vectors becomes; one of numbers stays what it is.
template <class T> inline constexpr auto mtl_bool(T a) {
  if constexpr (mtl_vector<T>::IS) {
    return __builtin_convertvector(a, vec<mtl_truth, mtl_vector<T>::COUNT>) & mtl_truth(1);
  } else {
    return a;
  }
}
// What bool2(...) becomes.
template <class A> inline constexpr auto mtl_truths(A a) {
  if constexpr (mtl_vector<A>::IS) {
    return mtl_bool(a != A(0));
  } else {
    return mtl_truth(bool(a));
  }
}
template <int N, class... A> inline constexpr vec<mtl_truth, N> mtl_make_bool(A... a) {
  return mtl_make<vec<mtl_truth, N>>(mtl_truths(a)...);
}

template <class To, class From> inline constexpr To as_type(From x) {
  static_assert(sizeof(To) == sizeof(From), "as_type keeps the size");
  return __builtin_bit_cast(To, x);
}

#define MTL_ONE(name, how) \
  template <class T> inline T name(T x) { return __builtin_elementwise_##how(x); }
#define MTL_TWO(name, how) \
  template <class T> inline T name(T x, T y) { return __builtin_elementwise_##how(x, y); }
#define MTL_FLOAT                                                                          \
  MTL_ONE(sin, sin) MTL_ONE(cos, cos) MTL_ONE(tan, tan) MTL_ONE(asin, asin)                \
  MTL_ONE(acos, acos) MTL_ONE(atan, atan) MTL_ONE(sinh, sinh) MTL_ONE(cosh, cosh)          \
  MTL_ONE(tanh, tanh) MTL_ONE(exp, exp) MTL_ONE(exp2, exp2) MTL_ONE(exp10, exp10)          \
  MTL_ONE(log, log) MTL_ONE(log2, log2) MTL_ONE(log10, log10) MTL_ONE(sqrt, sqrt)          \
  MTL_ONE(floor, floor) MTL_ONE(ceil, ceil) MTL_ONE(trunc, trunc) MTL_ONE(round, round)    \
  MTL_ONE(rint, rint) MTL_ONE(fabs, abs) MTL_TWO(pow, pow) MTL_TWO(fmod, fmod)             \
  MTL_TWO(atan2, atan2) MTL_TWO(fmin, minnum) MTL_TWO(fmax, maxnum)                        \
  template <class T> inline T rsqrt(T x) { return T(1) / __builtin_elementwise_sqrt(x); }  \
  template <class T> inline T fma(T a, T b, T c) {                                         \
    return __builtin_elementwise_fma(a, b, c);                                             \
  }
MTL_FLOAT
namespace precise { MTL_FLOAT }
namespace fast { MTL_FLOAT }
#undef MTL_FLOAT

template <class T> inline constexpr T min(T x, T y) {
  if constexpr (mtl_vector<T>::IS) return __builtin_elementwise_min(x, y);
  else return y < x ? y : x;
}
template <class T> inline constexpr T max(T x, T y) {
  if constexpr (mtl_vector<T>::IS) return __builtin_elementwise_max(x, y);
  else return x < y ? y : x;
}
// Floats: the one that is not NaN, as Metal's fmin and fmax.
inline float min(float x, float y) { return __builtin_elementwise_minnum(x, y); }
inline float max(float x, float y) { return __builtin_elementwise_maxnum(x, y); }
template <class T> inline T clamp(T x, T low, T high) { return min(max(x, low), high); }
template <class T> inline T saturate(T x) { return clamp(x, T(0), T(1)); }
template <class T> inline T abs(T x) { return __builtin_elementwise_abs(x); }
template <class T> inline T sign(T x) { return x > T(0) ? T(1) : x < T(0) ? T(-1) : x; }
template <class T> inline T fract(T x) { return x - floor(x); }
template <class T> inline T mix(T x, T y, T a) { return x + (y - x) * a; }
template <class T> inline T step(T edge, T x) { return x < edge ? T(0) : T(1); }
template <class T> inline T copysign(T x, T y) { return __builtin_elementwise_copysign(x, y); }
template <class T> inline T popcount(T x) { return __builtin_elementwise_popcount(x); }
template <class T> inline T reverse_bits(T x) { return __builtin_elementwise_bitreverse(x); }
inline uint clz(uint x) { return x ? uint(__builtin_clz(x)) : 32u; }
inline uint ctz(uint x) { return x ? uint(__builtin_ctz(x)) : 32u; }
inline uint mulhi(uint x, uint y) { return uint((ulong(x) * y) >> 32); }
template <class T> inline auto isnan(T x) { return mtl_bool(x != x); }
inline bool isinf(float x) { return __builtin_isinf(x); }
inline bool isfinite(float x) { return __builtin_isfinite(x); }
inline float sincos(float x, thread float& cosine) {
  cosine = cos(x);
  return sin(x);
}
// Angles in half turns. Rounded from the product with pi: Metal's own differ in the last place.
inline float sinpi(float x) { return sin(3.14159265358979f * x); }
inline float cospi(float x) { return cos(3.14159265358979f * x); }
template <class T> inline T select(T no, T yes, bool condition) { return condition ? yes : no; }
#ifdef __OPENCL_CPP_VERSION__
#define MTL_TRUTHS(C, who)
#else
#define MTL_TRUTHS(C, who) \
  static_assert(is_same_v<C, bool> || is_same_v<typename mtl_vector<C>::Element, mtl_truth>, who " takes vectors of bool");
#endif
template <class C> inline bool any(C truths) {
  MTL_TRUTHS(C, "any")
  if constexpr (mtl_vector<C>::IS) {
    bool found = false;
    for (int i = 0; i < mtl_vector<C>::COUNT; ++i) found = found || truths[i];
    return found;
  } else {
    return truths;
  }
}
template <class C> inline bool all(C truths) {
  MTL_TRUTHS(C, "all")
  if constexpr (mtl_vector<C>::IS) {
    bool found = true;
    for (int i = 0; i < mtl_vector<C>::COUNT; ++i) found = found && truths[i];
    return found;
  } else {
    return truths;
  }
}
template <class T, class C> inline T select(T no, T yes, C condition) {
  MTL_TRUTHS(C, "select")
  T result;
  for (uint i = 0; i < sizeof(T) / sizeof(no[0]); ++i) result[i] = condition[i] ? yes[i] : no[i];
  return result;
}
inline float dot(float2 a, float2 b) { return fma(a.y, b.y, a.x * b.x); }
inline float dot(float3 a, float3 b) { return fma(a.z, b.z, fma(a.y, b.y, a.x * b.x)); }
inline float dot(float4 a, float4 b) { return dot(a.xyz, b.xyz) + a.w * b.w; }
template <class T> inline float length_squared(T a) { return dot(a, a); }
template <class T> inline float length(T a) { return sqrt(dot(a, a)); }
template <class T> inline T normalize(T a) { return a / length(a); }

enum class mem_flags { mem_none = 0, mem_device = 1, mem_threadgroup = 2, mem_texture = 4 };
inline constexpr mem_flags operator|(mem_flags a, mem_flags b) {
  return mem_flags(uint(a) | uint(b));
}
inline __attribute__((always_inline)) void threadgroup_barrier(mem_flags flags, MTL_SITE) {
  mtl_threadgroup_barrier(uint(flags), line, column);
}
inline __attribute__((always_inline)) void simdgroup_barrier(mem_flags flags, MTL_SITE) {
  mtl_simdgroup_barrier(uint(flags), line, column);
}

// Values of every lane of the SIMD group, and which lanes took part.
template <class T> struct mtl_lanes {
  T value[32];
  uint active;
  inline __attribute__((always_inline)) mtl_lanes(T x, int line, int column) {
    active = mtl_gather(&x, value, sizeof(T), line, column);
  }
  inline T from(uint lane, int line, int column) {
    if (lane >= 32 || !(active >> lane & 1)) mtl_inactive_lane(lane, line, column);
    return value[lane & 31];
  }
};
template <class T> inline T simd_shuffle(T x, ushort lane, MTL_SITE) {
  return mtl_lanes<T>(x, line, column).from(lane, line, column);
}
template <class T> inline T simd_broadcast(T x, ushort lane, MTL_SITE) {
  return mtl_lanes<T>(x, line, column).from(lane, line, column);
}
template <class T> inline T simd_broadcast_first(T x, MTL_SITE) {
  mtl_lanes<T> lanes(x, line, column);
  return lanes.value[__builtin_ctz(lanes.active)];
}
template <class T> inline T simd_shuffle_xor(T x, ushort mask, MTL_SITE) {
  return mtl_lanes<T>(x, line, column).from(mtl_lane() ^ mask, line, column);
}
// Past the end of the group a lane keeps its own value; Metal leaves it undefined.
template <class T> inline T simd_shuffle_up(T x, ushort delta, MTL_SITE) {
  mtl_lanes<T> lanes(x, line, column);
  return mtl_lane() < delta ? x : lanes.from(mtl_lane() - delta, line, column);
}
template <class T> inline T simd_shuffle_down(T x, ushort delta, MTL_SITE) {
  mtl_lanes<T> lanes(x, line, column);
  return mtl_lane() + delta > 31 ? x : lanes.from(mtl_lane() + delta, line, column);
}
#define MTL_REDUCE(name, expression)                                  \
  template <class T> inline T name(T x, MTL_SITE) {                   \
    mtl_lanes<T> lanes(x, line, column);                              \
    bool first = true;                                                \
    T a = x;                                                          \
    for (uint i = 0; i < 32; ++i) {                                   \
      if (!(lanes.active >> i & 1)) continue;                         \
      T b = lanes.value[i];                                           \
      a = first ? b : (expression);                                   \
      first = false;                                                  \
    }                                                                 \
    return a;                                                         \
  }
MTL_REDUCE(simd_sum, a + b)
MTL_REDUCE(simd_product, a * b)
MTL_REDUCE(simd_max, max(a, b))
MTL_REDUCE(simd_min, min(a, b))
MTL_REDUCE(simd_and, a & b)
MTL_REDUCE(simd_or, a | b)
MTL_REDUCE(simd_xor, a ^ b)
#undef MTL_REDUCE
template <class T> inline T mtl_prefix(T x, bool inclusive, int line, int column) {
  mtl_lanes<T> lanes(x, line, column);
  T sum = T(0);
  for (uint i = 0; i < mtl_lane() + (inclusive ? 1 : 0); ++i) {
    if (lanes.active >> i & 1) sum = sum + lanes.value[i];
  }
  return sum;
}
template <class T> inline T simd_prefix_inclusive_sum(T x, MTL_SITE) {
  return mtl_prefix(x, true, line, column);
}
template <class T> inline T simd_prefix_exclusive_sum(T x, MTL_SITE) {
  return mtl_prefix(x, false, line, column);
}
inline bool simd_all(bool x, MTL_SITE) { return simd_min(int(x), line, column) != 0; }
inline bool simd_any(bool x, MTL_SITE) { return simd_max(int(x), line, column) != 0; }

}  // namespace metal

using namespace metal;

#include "atomic.h"
#include "complex.h"
