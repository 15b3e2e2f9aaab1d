// Metal's atomics. Threads are fibers of one thread, so a plain operation is indivisible; the
// runtime is told of the address, because two atomic accesses never race.
#pragma once

#define memory_order mtl_memory_order
#define memory_order_relaxed mtl_memory_order_relaxed
#define atomic_int mtl_atomic_int
#define atomic_uint mtl_atomic_uint
#define atomic_float mtl_atomic_float

namespace metal {

enum memory_order { memory_order_relaxed };
template <class T> struct atomic { T value; };
typedef atomic<int> atomic_int;
typedef atomic<uint> atomic_uint;
typedef atomic<float> atomic_float;

#define MTL_UNCHECKED __attribute__((no_sanitize("thread"), noinline))
#define MTL_ATOMIC(space, name, expression)                                               \
  template <class T, class V>                                                             \
  MTL_UNCHECKED T name(volatile space atomic<T>* object, V operand, memory_order) {       \
    mtl_atomic((const volatile void*)object, sizeof(T));                                  \
    T old = object->value, with = T(operand);                                             \
    object->value = expression;                                                           \
    return old;                                                                           \
  }
#define MTL_ATOMICS(space)                                                                \
  MTL_ATOMIC(space, atomic_fetch_add_explicit, old + with)                                \
  MTL_ATOMIC(space, atomic_fetch_sub_explicit, old - with)                                \
  MTL_ATOMIC(space, atomic_fetch_max_explicit, max(old, with))                            \
  MTL_ATOMIC(space, atomic_fetch_min_explicit, min(old, with))                            \
  MTL_ATOMIC(space, atomic_fetch_and_explicit, old & with)                                \
  MTL_ATOMIC(space, atomic_fetch_or_explicit, old | with)                                 \
  MTL_ATOMIC(space, atomic_fetch_xor_explicit, old ^ with)                                \
  MTL_ATOMIC(space, atomic_exchange_explicit, with)                                       \
  template <class T, class V>                                                             \
  MTL_UNCHECKED void atomic_store_explicit(volatile space atomic<T>* object, V operand,   \
                                           memory_order) {                                \
    mtl_atomic((const volatile void*)object, sizeof(T));                                  \
    object->value = T(operand);                                                           \
  }                                                                                       \
  template <class T>                                                                      \
  MTL_UNCHECKED T atomic_load_explicit(const volatile space atomic<T>* object,            \
                                       memory_order) {                                    \
    mtl_atomic((const volatile void*)object, sizeof(T));                                  \
    return object->value;                                                                 \
  }
MTL_ATOMICS(device)
MTL_ATOMICS(threadgroup)
#undef MTL_ATOMICS
#undef MTL_ATOMIC

}  // namespace metal
