// What LLVM's thread sanitizer pass calls before each access of a checked library. Part of
// runtime.cpp.
#pragma once

// The pass says "unaligned" of what the type allows to be so: packed vectors, copies of structs.
#define ACCESS(bytes)                                                                        \
  EXPORT void __tsan_read##bytes(void* a) { shadow_aligned(a, bytes, false); }               \
  EXPORT void __tsan_write##bytes(void* a) { shadow_aligned(a, bytes, true); }               \
  EXPORT void __tsan_unaligned_read##bytes(void* a) { shadow_access(a, bytes, false, false); } \
  EXPORT void __tsan_unaligned_write##bytes(void* a) { shadow_access(a, bytes, true, false); }
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
EXPORT void __tsan_init() {}
EXPORT void __tsan_func_entry(void*) {}
EXPORT void __tsan_func_exit() {}
EXPORT void* __tsan_memcpy(void* to, const void* from, size_t n) {
  shadow_access(from, n, false, false);
  shadow_access(to, n, true, false);
  return memcpy(to, from, n);
}
EXPORT void* __tsan_memmove(void* to, const void* from, size_t n) {
  shadow_access(from, n, false, false);
  shadow_access(to, n, true, false);
  return memmove(to, from, n);
}
EXPORT void* __tsan_memset(void* to, int value, size_t n) {
  shadow_access(to, n, true, false);
  return memset(to, value, n);
}
