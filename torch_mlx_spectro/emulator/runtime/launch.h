// What Python hands over for a launch, and what it gets back. library.py mirrors these structs.
#pragma once

#include <stdint.h>

namespace emulator {

enum BufferKind : uint32_t { INPUT = 0, CONSTANT = 1, OUTPUT = 2 };

struct Buffer {
  char* base;          // lowest address that may be accessed
  uint64_t bytes;      // and how many bytes from there
  uint32_t kind;       // BufferKind
  uint32_t granule;    // bytes that are accounted for together: 1, 2 or 4
  uint32_t written;    // the host has given an output its values
  uint32_t reserved;
  uint64_t bytes_read, bytes_written;  // results: counted once per threadgroup
  int64_t first_unwritten;             // result: byte offset, -1 where there is none
  uint64_t unwritten;                  // result: bytes
};

enum Order : uint32_t { ASCENDING = 0, DESCENDING = 1, RANDOM = 2 };

enum Failure : uint32_t {
  NONE = 0,
  OUT_OF_BOUNDS,
  UNINITIALISED,
  RACE,
  DIVERGENCE,
  FAULT,
  DIVISION,
  THREADGROUP_MEMORY,
  INACTIVE_LANE,
  NO_MEMORY,
  MISALIGNED,
};

enum Space : uint32_t { UNKNOWN = 0, DEVICE_BUFFER = 1, THREADGROUP_ARRAY = 2 };

struct Report {
  uint32_t failure;
  uint32_t is_write;      // of the access that failed
  uint32_t space;         // Space of the nearest memory
  uint32_t index;         // buffer, or threadgroup array
  int64_t offset;         // of the access, in bytes from the start of that memory
  uint32_t bytes;         // of the access; of all threadgroup memory
  uint32_t thread;        // in the threadgroup
  uint32_t group;         // in the grid, x fastest
  uint32_t other_thread;  // the other side of a race
  uint32_t other_group;
  uint32_t other_write;
  int32_t line, column;              // of the barrier that thread waits at
  int32_t other_line, other_column;  // and of the other thread's; 0 if it has returned
  uint64_t address;
};

struct ThreadPosition {
  uint32_t grid[3], group_nominal[3], group[3], groups[3];
  uint32_t in_group[3], group_in_grid[3];
  uint32_t index, lane, simd, simds, simds_nominal;
};

struct Launch {
  void (*entry)(void* const* arguments, const ThreadPosition* position);
  void* const* arguments;
  Buffer* buffers;
  uint32_t n_buffers;
  uint32_t order;
  uint64_t seed;
  uint32_t grid[3], group[3];
  uint32_t checked;
  uint32_t flush;              // denormal numbers in single precision are zeros
  uint32_t threadgroup_limit;  // bytes
  const char *image, *image_end;  // the library's own constants
  uint64_t threads_run;           // result
  uint64_t threadgroup_bytes;     // result
  // Results: how often a group's threads, and those of a SIMD group, have waited for each other.
  uint64_t barriers, simd_barriers;
  Report report;                  // result
};

}  // namespace emulator
