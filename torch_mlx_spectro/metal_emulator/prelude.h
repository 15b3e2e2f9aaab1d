// The part of Metal's language and library that kernels use, for clang on a CPU.
#include "hooks.h"

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
typedef signed char int8_t;
typedef short int16_t;
typedef int int32_t;
typedef long int64_t;
typedef uchar uint8_t;
typedef ushort uint16_t;
typedef uint uint32_t;
typedef ulong uint64_t;
typedef ulong size_t;
typedef _Float16 half;
#define SPECTRO_VECTORS(type)                                     \
  typedef type type##2 __attribute__((ext_vector_type(2)));       \
  typedef type type##3 __attribute__((ext_vector_type(3)));       \
  typedef type type##4 __attribute__((ext_vector_type(4)));
SPECTRO_VECTORS(float)
SPECTRO_VECTORS(int)
SPECTRO_VECTORS(uint)
SPECTRO_VECTORS(half)
SPECTRO_VECTORS(short)
SPECTRO_VECTORS(ushort)
#undef SPECTRO_VECTORS

// MLX's element type of complex arrays.
struct complex64_t {
  float real;
  float imag;
};

#ifdef SPECTRO_CHECKED
#define device
#define constant
#define threadgroup
#else
#define device __attribute__((address_space(1)))
#define constant __attribute__((address_space(2)))
#define threadgroup __attribute__((address_space(3)))
#endif
#define thread

// What belongs to the emulator is not checked itself.
#define SPECTRO_OWN __attribute__((disable_sanitizer_instrumentation))

__attribute__((section(".spectro_hooks"))) const Hooks* spectro_hooks = nullptr;

SPECTRO_OWN inline void spectro_group_memory(void* address, u64 bytes) {
  spectro_hooks->threadgroup_memory(address, bytes);
}

enum class mem_flags { mem_none = 0, mem_device = 1, mem_threadgroup = 2, mem_texture = 4 };
inline mem_flags operator|(mem_flags a, mem_flags b) { return mem_flags(int(a) | int(b)); }
SPECTRO_OWN inline void threadgroup_barrier(mem_flags) { spectro_hooks->barrier(SCOPE_GROUP); }
SPECTRO_OWN inline void simdgroup_barrier(mem_flags) { spectro_hooks->barrier(SCOPE_SIMD); }

namespace metal {
inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float abs(float x) { return __builtin_fabsf(x); }
inline float sqrt(float x) { return __builtin_sqrtf(x); }
inline float rsqrt(float x) { return 1.0f / __builtin_sqrtf(x); }
inline float floor(float x) { return __builtin_floorf(x); }
inline float ceil(float x) { return __builtin_ceilf(x); }
inline float sin(float x) { return __builtin_sinf(x); }
inline float cos(float x) { return __builtin_cosf(x); }
template <class T> inline T min(T a, T b) { return b < a ? b : a; }
template <class T> inline T max(T a, T b) { return a < b ? b : a; }
template <class T> inline T clamp(T x, T low, T high) { return min(max(x, low), high); }
template <class T> inline T select(T a, T b, bool c) { return c ? b : a; }

// Every thread of the SIMD group puts its value down, and takes another one's.
template <class T> SPECTRO_OWN inline T simd_shuffle(T value, ushort lane) {
  static_assert(sizeof(T) <= 16, "a shuffle moves 16 bytes at most");
  *(T*)spectro_hooks->mailbox(spectro_hooks->lane()) = value;
  spectro_hooks->barrier(SCOPE_SHUFFLE);
  T other = *(T*)spectro_hooks->mailbox(lane % 32);
  spectro_hooks->barrier(SCOPE_SHUFFLE);
  return other;
}
template <class T> SPECTRO_OWN inline T simd_broadcast(T value, ushort lane) {
  return simd_shuffle(value, lane);
}
template <class T> SPECTRO_OWN inline T simd_shuffle_xor(T value, ushort mask) {
  return simd_shuffle(value, ushort(spectro_hooks->lane() ^ mask));
}
template <class T> SPECTRO_OWN inline T simd_shuffle_down(T value, ushort delta) {
  return simd_shuffle(value, ushort(spectro_hooks->lane() + delta));
}
template <class T> SPECTRO_OWN inline T simd_shuffle_up(T value, ushort delta) {
  return simd_shuffle(value, ushort(spectro_hooks->lane() - delta));
}
template <class T> SPECTRO_OWN inline T simd_sum(T value) {
  T sum = T(0);
  for (uint lane = 0; lane < spectro_hooks->simd_threads(); ++lane) {
    sum = sum + simd_shuffle(value, ushort(lane));
  }
  return sum;
}
}  // namespace metal
using namespace metal;

#ifdef SPECTRO_CHECKED
extern "C" {
#define SPECTRO_ACCESS(name, bytes, is_write) \
  SPECTRO_OWN void __tsan_##name(void* p) { spectro_hooks->access(p, bytes, is_write); }
#define SPECTRO_SIZES(prefix)                                                                \
  SPECTRO_ACCESS(prefix##read1, 1, false) SPECTRO_ACCESS(prefix##write1, 1, true)            \
  SPECTRO_ACCESS(prefix##read2, 2, false) SPECTRO_ACCESS(prefix##write2, 2, true)            \
  SPECTRO_ACCESS(prefix##read4, 4, false) SPECTRO_ACCESS(prefix##write4, 4, true)            \
  SPECTRO_ACCESS(prefix##read8, 8, false) SPECTRO_ACCESS(prefix##write8, 8, true)            \
  SPECTRO_ACCESS(prefix##read16, 16, false) SPECTRO_ACCESS(prefix##write16, 16, true)
SPECTRO_SIZES()
SPECTRO_SIZES(unaligned_)
SPECTRO_OWN void __tsan_init() {}
SPECTRO_OWN void __tsan_func_entry(void*) {}
SPECTRO_OWN void __tsan_func_exit() {}
SPECTRO_OWN void* __tsan_memcpy(void* to, const void* from, u64 bytes) {
  spectro_hooks->access(from, bytes, false);
  spectro_hooks->access(to, bytes, true);
  return __builtin_memcpy(to, from, bytes);
}
SPECTRO_OWN void* __tsan_memmove(void* to, const void* from, u64 bytes) {
  spectro_hooks->access(from, bytes, false);
  spectro_hooks->access(to, bytes, true);
  return __builtin_memmove(to, from, bytes);
}
SPECTRO_OWN void* __tsan_memset(void* to, int value, u64 bytes) {
  spectro_hooks->access(to, bytes, true);
  return __builtin_memset(to, value, bytes);
}
}
#endif

// What Metal has not: any use is an error.
#pragma GCC poison double goto throw try catch virtual new delete dynamic_cast typeid thread_local
