// What makes the other headers CUDA C++ for NVRTC: the names of Metal that they use, in CUDA's.
//
// A CUDA thread block is Metal's threadgroup, a warp its SIMD group, shared memory its threadgroup
// memory. Address spaces qualify pointers in Metal and nothing in CUDA; the one declaration of
// threadgroup memory, in a kernel's body, is rewritten to __shared__ where the text is put together.
// Limits: long has 64 bits (not on Windows); compiled with functions for the device by default.
#pragma once

#define device
#define thread
#define threadgroup
#define constant

typedef unsigned int uint;
typedef unsigned long ulong;
static_assert(sizeof(long) == 8, "offsets have 64 bits");

enum class mem_flags { mem_none, mem_threadgroup };

inline void threadgroup_barrier(mem_flags) { __syncthreads(); }
inline void simdgroup_barrier(mem_flags) { __syncwarp(); }

inline float2 operator+(float2 a, float2 b) { return make_float2(a.x + b.x, a.y + b.y); }
inline float2 operator-(float2 a, float2 b) { return make_float2(a.x - b.x, a.y - b.y); }
inline float2 operator-(float2 a) { return make_float2(-a.x, -a.y); }
inline float2& operator+=(float2& a, float2 b) {
  a.x += b.x;
  a.y += b.y;
  return a;
}

typedef uint atomic_uint;
enum memory_order { memory_order_relaxed };
inline void atomic_store_explicit(atomic_uint* object, uint value, memory_order) {
  *(volatile uint*)object = value;
}
inline uint atomic_load_explicit(const atomic_uint* object, memory_order) {
  return *(const volatile uint*)object;
}
inline uint atomic_fetch_or_explicit(atomic_uint* object, uint value, memory_order) {
  return atomicOr(object, value);
}

inline bool is_asked(const atomic_uint* verdict) { return verdict != 0; }

template <class To> inline To as_type(int bits) { return __int_as_float(bits); }

// 1 / x to one bit. The built-in division is a call, for which the compiler reserves registers.
inline float near_inverse(float x) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

// A zero that the compiler cannot know, so that what is added to it is not computed earlier.
inline float zero_from_here_on() {
  float zero;
  asm volatile("mov.f32 %0, 0f00000000;" : "=f"(zero));
  return zero;
}

// An address that stays in registers. To save them the compiler would compute it at each use, from
// the group's position in the grid, which takes as long as a store (1024 points: 5 % on an H200).
inline float* computed_once(float* address) {
  asm volatile("" : "+l"(address));
  return address;
}

// Prefetches what lies at an address into the second-level cache, without waiting for it.
inline void will_read(const void* address) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
}

// Called before memory is touched: waits until the stream's earlier work has ended, with all results
// in memory. A launch that asks for it (PROGRAMMATIC_STREAM_SERIALIZATION) starts on the cores while
// the last groups of its predecessor run. Any other launch has nothing to wait for.
inline void after_earlier_launches() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// A launch's small arguments, by value: no memory of the device holds them.
template <int INTEGERS> struct LaunchArguments {
  long strides[3];  // of the first input, in elements
  long integers[INTEGERS];
  uint grid[3];  // threads
  float edge;
};

// Where a thread is. A grid's second and third dimension are limited to 65535 blocks in CUDA: with
// FLAT all three are counted by the first.
template <bool FLAT> inline uint3 group_in_grid(const uint (&grid)[3], uint width) {
  if (!FLAT) return make_uint3(blockIdx.x, blockIdx.y, blockIdx.z);
  const uint across = (grid[0] + width - 1) / width;
  const uint rows = blockIdx.x / across;
  return make_uint3(blockIdx.x % across, rows % grid[1], rows / grid[1]);
}
