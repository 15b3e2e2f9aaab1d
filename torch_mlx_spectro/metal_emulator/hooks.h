// What a compiled kernel and the machine that runs it know of each other.
#pragma once

typedef unsigned int u32;
typedef unsigned long u64;

enum Scope { SCOPE_GROUP, SCOPE_SIMD, SCOPE_SHUFFLE };

struct Position {
  u32 in_group[3], group[3], group_size[3], grid[3], groups[3];
  u32 index, lane, simd;
};

struct Hooks {
  void (*barrier)(int scope);
  void (*threadgroup_memory)(void* address, u64 bytes);
  void (*access)(const void* address, u64 bytes, bool is_write);
  // 16 bytes of each thread, for shuffles.
  unsigned char* (*mailbox)(u32 lane);
  u32 (*simd_threads)();
  u32 (*lane)();
};
