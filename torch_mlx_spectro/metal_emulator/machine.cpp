// Runs one launch: every thread of a group is a fiber, run until it meets a barrier.
#include "hooks.h"

#include <sys/mman.h>

extern "C" void* memset(void*, int, u64);
extern "C" void* calloc(u64, u64);
extern "C" void free(void*);

namespace {

enum { MAX_THREADS = 1024, SIMD = 32, STACK = 256 << 10, MAX_BUFFERS = 64, GROUP_BYTES = 32 << 10 };
enum State { RUNNABLE, AT_GROUP, AT_SIMD, AT_SHUFFLE, DONE };
enum Failure {
  NONE, DIVERGENCE, OUT_OF_BOUNDS, WRITE_TO_INPUT, UNINITIALISED, RACE, GROUP_MEMORY, NO_STACK
};

struct Buffer {
  unsigned char* address;
  u64 bytes;
  int is_output;
  int is_initialised;
  u64 bytes_read;
  u64 bytes_written;
};

struct Report {
  int failure;
  int buffer;  // -1: threadgroup memory, -2: nowhere
  long offset;
  int bytes, is_write;
  u32 thread, other;
  u32 group[3];
};

// Of four bytes of threadgroup memory in this group, or of a device buffer in this launch.
struct Cell {
  u32 writer, write_group, write_simd;  // thread + 1; barriers passed before
  u32 reader, read_group, read_simd;
  u32 readers;  // more than one since the last write
  u32 owner;  // device: group that wrote last, + 1
  u32 seen;   // device: group that read last, + 1
};

struct Fiber {
  void* stack_pointer;
  State state;
};

struct Run {
  const Hooks* hooks;
  void (*kernel)(void**, const Position*);
  void** arguments;
  Buffer* buffers;
  int buffer_count;
  Report* report;
  bool checked;
  u32 threads, group_index, group_barriers, simd_barriers[MAX_THREADS / SIMD];
  unsigned char* memory[8];
  u64 memory_bytes[8];
  int memories;
  bool group_started;
};

Run run;
Fiber fibers[MAX_THREADS];
Position positions[MAX_THREADS];
unsigned char mail[MAX_THREADS][16];
unsigned char* stacks;
void* main_stack_pointer;
u32 current;
Cell group_cells[GROUP_BYTES / 4];
Cell* device_cells[MAX_BUFFERS];
const unsigned char* constants_begin;
const unsigned char* constants_end;

extern "C" void spectro_switch(void** save, void* load) asm("spectro_switch");
#if defined(__x86_64__)
asm(".text\n.globl spectro_switch\nspectro_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp, (%rdi)\nmovq %rsi, %rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n");
enum { SAVED = 6 };
#elif defined(__aarch64__)
asm(".text\n.globl spectro_switch\nspectro_switch:\n"
    "sub sp, sp, #176\nstp x19, x20, [sp]\nstp x21, x22, [sp, #16]\nstp x23, x24, [sp, #32]\n"
    "stp x25, x26, [sp, #48]\nstp x27, x28, [sp, #64]\nstp x29, x30, [sp, #80]\n"
    "stp d8, d9, [sp, #96]\nstp d10, d11, [sp, #112]\nstp d12, d13, [sp, #128]\n"
    "stp d14, d15, [sp, #144]\nmov x2, sp\nstr x2, [x0]\nmov sp, x1\n"
    "ldp x19, x20, [sp]\nldp x21, x22, [sp, #16]\nldp x23, x24, [sp, #32]\n"
    "ldp x25, x26, [sp, #48]\nldp x27, x28, [sp, #64]\nldp x29, x30, [sp, #80]\n"
    "ldp d8, d9, [sp, #96]\nldp d10, d11, [sp, #112]\nldp d12, d13, [sp, #128]\n"
    "ldp d14, d15, [sp, #144]\nadd sp, sp, #176\nret\n");
#else
#error "the emulator switches fibers on x86-64 and arm64 only"
#endif

void fail(int failure, int buffer, long offset, u64 bytes, bool is_write, u32 other) {
  if (run.report->failure == NONE) {
    Report& report = *run.report;
    report.failure = failure;
    report.buffer = buffer;
    report.offset = offset;
    report.bytes = int(bytes);
    report.is_write = is_write;
    report.thread = current;
    report.other = other;
    for (int i = 0; i < 3; ++i) report.group[i] = positions[current].group[i];
  }
}

// Leaves the launch from within a fiber; it is never resumed.
void abandon() {
  void* unused;
  spectro_switch(&unused, main_stack_pointer);
}

void enter() {
  run.kernel(run.arguments, &positions[current]);
  fibers[current].state = DONE;
  abandon();
}

void start(u32 index) {
  void** top = (void**)(stacks + u64(index + 1) * STACK);
#if defined(__x86_64__)
  *--top = nullptr;
  *--top = (void*)enter;  // at this ret the stack is aligned as at a call
  for (int i = 0; i < SAVED; ++i) *--top = nullptr;
#else
  top -= 22;
  for (int i = 0; i < 22; ++i) top[i] = nullptr;
  top[11] = (void*)enter;
#endif
  fibers[index].stack_pointer = top;
  fibers[index].state = RUNNABLE;
}

void barrier(int scope) {
  fibers[current].state = scope == SCOPE_GROUP ? AT_GROUP : scope == SCOPE_SIMD ? AT_SIMD : AT_SHUFFLE;
  spectro_switch(&fibers[current].stack_pointer, main_stack_pointer);
}

void threadgroup_memory(void* address, u64 bytes) {
  for (int i = 0; i < run.memories; ++i) {
    if (run.memory[i] == address) return;
  }
  u64 total = bytes;
  for (int i = 0; i < run.memories; ++i) total += run.memory_bytes[i];
  if (run.memories == 8 || total > GROUP_BYTES) {
    fail(GROUP_MEMORY, -1, long(total), 0, false, 0);
    abandon();
  }
  run.memory[run.memories] = (unsigned char*)address;
  run.memory_bytes[run.memories++] = bytes;
  u32* words = (u32*)address;
  for (u64 i = 0; i < bytes / 4; ++i) words[i] = 0x7fc0dead;
}

bool ordered(u32 other, u32 at_group, u32 at_simd) {
  if (other == current || at_group < run.group_barriers) return true;
  u32 simd = current / SIMD;
  return other / SIMD == simd && at_simd < run.simd_barriers[simd];
}

// Whether this access of a cell races with an earlier one of the same group; the other thread + 1.
u32 racing(Cell& cell, bool is_write) {
  if (cell.writer && !ordered(cell.writer - 1, cell.write_group, cell.write_simd)) {
    return cell.writer;
  }
  if (is_write && cell.reader) {
    if (cell.readers && cell.read_group == run.group_barriers) {
      bool same_simd = cell.readers == 1 && (cell.reader - 1) / SIMD == current / SIMD;
      if (!same_simd || cell.read_simd == run.simd_barriers[current / SIMD]) return cell.reader;
    } else if (!ordered(cell.reader - 1, cell.read_group, cell.read_simd)) {
      return cell.reader;
    }
  }
  return 0;
}

void mark(Cell& cell, bool is_write) {
  u32 simd = current / SIMD;
  if (is_write) {
    cell.writer = current + 1;
    cell.write_group = run.group_barriers;
    cell.write_simd = run.simd_barriers[simd];
    cell.reader = cell.readers = 0;
    return;
  }
  // readers: 0 one thread, 1 several of one SIMD group, 2 of several, since the last group barrier
  if (cell.reader && cell.read_group == run.group_barriers && cell.reader != current + 1) {
    u32 more = (cell.reader - 1) / SIMD == simd ? 1 : 2;
    if (cell.readers < more) cell.readers = more;
  } else if (!cell.reader || cell.read_group != run.group_barriers) {
    cell.readers = 0;
  }
  cell.reader = current + 1;
  cell.read_group = run.group_barriers;
  cell.read_simd = run.simd_barriers[simd];
}

void access_group(const unsigned char* address, u64 bytes, bool is_write, int index) {
  long offset = address - run.memory[index], base = 0;
  for (int i = 0; i < index; ++i) base += long(run.memory_bytes[i]);
  if (u64(offset) + bytes > run.memory_bytes[index]) {
    fail(OUT_OF_BOUNDS, -1, offset, bytes, is_write, 0);
    abandon();
  }
  for (long at = (base + offset) / 4; at <= long(base + offset + bytes - 1) / 4; ++at) {
    Cell& cell = group_cells[at];
    u32 other = racing(cell, is_write);
    if (other || (!is_write && !cell.writer)) {
      fail(other ? RACE : UNINITIALISED, -1, offset, bytes, is_write, other - 1);
      abandon();
    }
    mark(cell, is_write);
  }
}

void access_device(long offset, u64 bytes, bool is_write, int index) {
  Buffer& buffer = run.buffers[index];
  if (u64(offset) + bytes > buffer.bytes || (is_write && !buffer.is_output)) {
    bool outside = u64(offset) + bytes > buffer.bytes;
    fail(outside ? OUT_OF_BOUNDS : WRITE_TO_INPUT, index, offset, bytes, is_write, 0);
    abandon();
  }
  u32 group = run.group_index + 1;
  for (long at = offset / 4; at <= long(offset + bytes - 1) / 4; ++at) {
    Cell& cell = device_cells[index][at];
    if (buffer.is_output) {
      if (!is_write && !cell.owner && !buffer.is_initialised) {
        fail(UNINITIALISED, index, offset, bytes, is_write, 0);
        abandon();
      }
      bool foreign = (cell.owner && cell.owner != group) || (is_write && cell.seen && cell.seen != group);
      u32 other = cell.owner == group || cell.seen == group ? racing(cell, is_write) : 0;
      if (foreign || other) {
        fail(RACE, index, offset, bytes, is_write, other ? other - 1 : 0);
        abandon();
      }
      mark(cell, is_write);
    }
    u32& stamp = is_write ? cell.owner : cell.seen;
    if (stamp != group) (is_write ? buffer.bytes_written : buffer.bytes_read) += 4;
    stamp = group;
  }
}

void access(const void* pointer, u64 bytes, bool is_write) {
  const unsigned char* address = (const unsigned char*)pointer;
  const unsigned char* stack = stacks + u64(current) * STACK;
  if (address >= stack && address < stack + STACK) return;
  for (int i = 0; i < run.memories; ++i) {
    // Just behind an array: still taken for it, and out of its bounds.
    if (address >= run.memory[i] && address < run.memory[i] + run.memory_bytes[i] + 16) {
      return access_group(address, bytes, is_write, i);
    }
  }
  long nearest = -1;
  int near_index = -2;
  for (int i = 0; i < run.buffer_count; ++i) {
    long offset = address - run.buffers[i].address;
    if (offset >= 0 && u64(offset) < run.buffers[i].bytes) return access_device(offset, bytes, is_write, i);
    long distance = offset < 0 ? -offset : offset - long(run.buffers[i].bytes);
    if (nearest < 0 || distance < nearest) {
      nearest = distance;
      near_index = i;
    }
  }
  if (!is_write && address >= constants_begin && address < constants_end) return;
  long offset = near_index < 0 ? 0 : address - run.buffers[near_index].address;
  fail(OUT_OF_BOUNDS, near_index, offset, bytes, is_write, 0);
  abandon();
}

unsigned char* mailbox(u32 lane) { return mail[current / SIMD * SIMD + lane]; }
u32 lane() { return current % SIMD; }
u32 simd_threads() {
  u32 first = current / SIMD * SIMD;
  return run.threads - first < SIMD ? run.threads - first : u32(SIMD);
}

const Hooks hooks = {barrier, threadgroup_memory, access, mailbox, simd_threads, lane};

// Whether every thread of [from, to) has this state.
bool all(u32 from, u32 to, State state) {
  for (u32 i = from; i < to; ++i) {
    if (fibers[i].state != state) return false;
  }
  return true;
}

void release(u32 from, u32 to) {
  for (u32 i = from; i < to; ++i) fibers[i].state = RUNNABLE;
}

// Releases what has met at a barrier; false when nobody can go on.
bool meet() {
  if (all(0, run.threads, AT_GROUP)) {
    ++run.group_barriers;
    release(0, run.threads);
    return true;
  }
  bool any = false;
  for (u32 first = 0; first < run.threads; first += SIMD) {
    u32 end = first + SIMD < run.threads ? first + SIMD : run.threads;
    bool at_barrier = all(first, end, AT_SIMD);
    if (at_barrier) ++run.simd_barriers[first / SIMD];
    if (at_barrier || all(first, end, AT_SHUFFLE)) {
      release(first, end);
      any = true;
    }
  }
  return any;
}

void run_group(const int* order) {
  run.group_barriers = 1;
  run.memories = 0;
  for (u32 i = 0; i < MAX_THREADS / SIMD; ++i) run.simd_barriers[i] = 1;
  if (run.checked) memset(group_cells, 0, sizeof(group_cells));
  for (u32 i = 0; i < run.threads; ++i) start(i);
  while (!all(0, run.threads, DONE)) {
    for (u32 i = 0; i < run.threads; ++i) {
      current = u32(order[i]);
      if (fibers[current].state != RUNNABLE) continue;
      spectro_switch(&main_stack_pointer, fibers[current].stack_pointer);
      if (run.report->failure != NONE) return;
    }
    if (!all(0, run.threads, DONE) && !meet()) {
      for (current = 0; fibers[current].state == DONE; ++current) {
      }
      fail(DIVERGENCE, -2, 0, 0, false, 0);
      return;
    }
  }
}

bool prepare(bool checked) {
  if (!stacks) {
    void* mapped = mmap(nullptr, u64(MAX_THREADS) * STACK, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) return false;
    stacks = (unsigned char*)mapped;
  }
  for (int i = 0; i < run.buffer_count; ++i) {
    device_cells[i] = nullptr;
    if (!checked) continue;
    device_cells[i] = (Cell*)calloc(run.buffers[i].bytes / 4 + 1, sizeof(Cell));
    if (!device_cells[i]) return false;
  }
  return true;
}

void place(const u32* group, const u32* size, const u32* grid) {
  run.threads = 0;
  u32 extent[3];
  for (int i = 0; i < 3; ++i) {
    u32 left = grid[i] - group[i] * size[i];
    extent[i] = left < size[i] ? left : size[i];
  }
  for (u32 z = 0; z < extent[2]; ++z) {
    for (u32 y = 0; y < extent[1]; ++y) {
      for (u32 x = 0; x < extent[0]; ++x) {
        Position& p = positions[run.threads];
        u32 in[3] = {x, y, z};
        for (int i = 0; i < 3; ++i) {
          p.in_group[i] = in[i];
          p.group[i] = group[i];
          p.group_size[i] = extent[i];
          p.grid[i] = grid[i];
          p.groups[i] = (grid[i] + size[i] - 1) / size[i];
        }
        p.index = run.threads;
        p.lane = run.threads % SIMD;
        p.simd = run.threads / SIMD;
        ++run.threads;
      }
    }
  }
}

}  // namespace

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED const Hooks* spectro_machine_hooks() { return &hooks; }

// orders: a permutation of the group's thread indices. Elements of outputs that nobody wrote are
// counted in `unwritten`.
EXPORTED void spectro_launch(void (*kernel)(void**, const Position*), void** arguments,
                               Buffer* buffers, int buffer_count, const u32* grid, const u32* size,
                               const int* order, int checked, const void* constants, u64 constants_bytes,
                               Report* report, u64* unwritten) {
  run.kernel = kernel;
  run.arguments = arguments;
  run.buffers = buffers;
  run.buffer_count = buffer_count;
  run.report = report;
  run.checked = checked;
  run.group_index = 0;
  constants_begin = (const unsigned char*)constants;
  constants_end = constants_begin + constants_bytes;
  report->failure = NONE;
  *unwritten = 0;
  if (!prepare(checked)) {
    report->failure = NO_STACK;
    return;
  }
  static int filtered[MAX_THREADS];
  u32 full = size[0] * size[1] * size[2];
  u32 group[3];
  for (group[2] = 0; group[2] * u64(size[2]) < grid[2]; ++group[2]) {
    for (group[1] = 0; group[1] * u64(size[1]) < grid[1]; ++group[1]) {
      for (group[0] = 0; group[0] * u64(size[0]) < grid[0]; ++group[0]) {
        if (report->failure != NONE) continue;
        place(group, size, grid);
        u32 kept = 0;
        for (u32 i = 0; i < full; ++i) {
          if (u32(order[i]) < run.threads) filtered[kept++] = order[i];
        }
        run_group(filtered);
        ++run.group_index;
      }
    }
  }
  for (int i = 0; checked && i < buffer_count; ++i) {
    if (buffers[i].is_output && !buffers[i].is_initialised) {
      for (u64 at = 0; at < buffers[i].bytes / 4; ++at) *unwritten += device_cells[i][at].owner == 0;
    }
    free(device_cells[i]);
    device_cells[i] = nullptr;
  }
}
