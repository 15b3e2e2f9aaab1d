// Runs a compiled kernel over a grid: groups one after the other, the threads of a group as fibers
// which run until they wait at a barrier or for the lanes of their SIMD group.
//
// One launch at a time: Python holds a lock. No memory of the launch is kept after it.
#include "launch.h"

#include "fiber.h"
#include "denormals.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>

namespace emulator {

constexpr uint32_t SIMD = 32;
constexpr uint32_t POISON = 0x7fc0dead;  // a NaN in float
constexpr uint32_t MAX_ARRAYS = 64;
// Between threadgroup arrays, so that running over the end of one does not reach the next.
constexpr uint64_t GAP = 64;

enum State : uint8_t { READY, AT_BARRIER, AT_SIMD_BARRIER, AT_GATHER, RETURNED };

struct Fiber {
  Context context;
  ThreadPosition position;
  State state;
  uint32_t flags;  // of the barrier
  int line, column;
  const void* value;  // gather: what this lane offers, and where all lanes' values go
  void* all;
  uint32_t bytes, active;
};

struct Array {
  uint64_t begin, bytes;
  bool used;
};

struct State_ {
  Launch* launch;
  Fiber* fibers;
  char* stacks;
  Context scheduler;
  Fiber* current;
  uint32_t count, live, group_index;
  uint16_t order[MAX_THREADS];
  uint64_t random;
  Array arrays[MAX_ARRAYS];
  uint32_t n_arrays;
  uint64_t arena_used, arrays_bytes;
  char* arena;
  bool stop;
  pthread_t runner;
};
State_ s;

constexpr uint64_t ARENA_BYTES = (64 << 10) + MAX_ARRAYS * 2 * GAP;

// Leaves the fiber for good; the launch ends.
[[noreturn]] void fail(uint32_t failure) {
  Report& report = s.launch->report;
  report.failure = failure;
  report.thread = s.current ? s.current->position.index : 0;
  report.group = s.group_index;
  s.stop = true;
  Context abandoned;
  switch_context(abandoned, s.scheduler);
  abort();
}

}  // namespace emulator

#include "shadow.h"

namespace emulator {

void wait(State state) {
  Fiber& fiber = *s.current;
  fiber.state = state;
  switch_context(fiber.context, s.scheduler);
}

void fiber_main() {
  s.launch->entry(s.launch->arguments, &s.current->position);
  s.live -= 1;
  wait(RETURNED);
  abort();
}

uint64_t next_random() {
  s.random ^= s.random << 13;
  s.random ^= s.random >> 7;
  s.random ^= s.random << 17;
  return s.random;
}

void arrange(uint16_t* order, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    order[i] = uint16_t(s.launch->order == DESCENDING ? count - 1 - i : i);
  }
  if (s.launch->order != RANDOM) return;
  for (uint32_t i = count; i > 1; --i) {
    uint32_t j = uint32_t(next_random() % i);
    uint16_t swapped = order[i - 1];
    order[i - 1] = order[j];
    order[j] = swapped;
  }
}

bool diverged(const Fiber& fiber, const Fiber& other) {
  Report& report = s.launch->report;
  report.failure = DIVERGENCE;
  report.thread = fiber.position.index;
  report.group = s.group_index;
  report.line = fiber.line;
  report.column = fiber.column;
  report.other_thread = other.position.index;
  report.other_line = other.state == RETURNED ? 0 : other.line;
  report.other_column = other.column;
  s.stop = true;
  return false;
}

bool together(const Fiber& a, const Fiber& b) {
  return a.state == b.state && a.line == b.line && a.column == b.column && a.flags == b.flags;
}

// Gives every waiting lane the values of all lanes that wait with it.
void exchange(Fiber* first, uint32_t lanes) {
  uint32_t active = 0;
  for (uint32_t i = 0; i < lanes; ++i) active |= uint32_t(first[i].state == AT_GATHER) << i;
  for (uint32_t i = 0; i < lanes; ++i) {
    if (first[i].state != AT_GATHER) continue;
    char* all = static_cast<char*>(first[i].all);
    for (uint32_t j = 0; j < lanes; ++j) {
      if (active >> j & 1) memcpy(all + first[i].bytes * j, first[j].value, first[i].bytes);
    }
    first[i].active = active;
  }
}

// Lets the lanes of a SIMD group go on where all of them wait for each other.
bool release_simd(uint32_t simd, bool& released) {
  Fiber* first = s.fibers + simd * SIMD;
  const uint32_t lanes = s.count - simd * SIMD < SIMD ? s.count - simd * SIMD : SIMD;
  const Fiber* waiting = nullptr;
  for (uint32_t i = 0; i < lanes && !waiting; ++i) {
    if (first[i].state == AT_SIMD_BARRIER || first[i].state == AT_GATHER) waiting = first + i;
  }
  if (!waiting) return true;
  const bool gather = waiting->state == AT_GATHER;
  for (uint32_t i = 0; i < lanes; ++i) {
    if (gather && first[i].state == RETURNED) continue;
    if (!together(*waiting, first[i])) return diverged(*waiting, first[i]);
  }
  if (gather) exchange(first, lanes);
  if (!gather) {
    s.launch->simd_barriers += 1;
    shadow_simd_barrier(simd, waiting->flags);
  }
  for (uint32_t i = 0; i < lanes; ++i) {
    if (first[i].state != RETURNED) first[i].state = READY;
  }
  released = true;
  return true;
}

// After a round in which nobody could run: false when the group is done or the launch stops.
bool release() {
  if (s.live == 0) return false;
  bool released = false;
  for (uint32_t simd = 0; simd * SIMD < s.count; ++simd) {
    if (!release_simd(simd, released)) return false;
  }
  if (released) return true;
  const Fiber* waiting = s.fibers;
  while (waiting->state == RETURNED) ++waiting;
  for (uint32_t i = 0; i < s.count; ++i) {
    if (!together(*waiting, s.fibers[i])) return diverged(*waiting, s.fibers[i]);
  }
  s.launch->barriers += 1;
  shadow_barrier(waiting->flags);
  for (uint32_t i = 0; i < s.count; ++i) s.fibers[i].state = READY;
  return true;
}

void start_group(const uint32_t group[3], const uint32_t groups[3]) {
  const Launch& launch = *s.launch;
  ThreadPosition p;
  s.count = 1;
  for (int d = 0; d < 3; ++d) {
    const uint32_t first = group[d] * launch.group[d];
    const uint32_t left = launch.grid[d] - first;
    p.grid[d] = launch.grid[d];
    p.groups[d] = groups[d];
    p.group_in_grid[d] = group[d];
    p.group_nominal[d] = launch.group[d];
    p.group[d] = left < launch.group[d] ? left : launch.group[d];
    s.count *= p.group[d];
  }
  p.simds = (s.count + SIMD - 1) / SIMD;
  p.simds_nominal = (launch.group[0] * launch.group[1] * launch.group[2] + SIMD - 1) / SIMD;
  for (uint32_t i = 0; i < s.count; ++i) {
    Fiber& fiber = s.fibers[i];
    p.in_group[0] = i % p.group[0];
    p.in_group[1] = i / p.group[0] % p.group[1];
    p.in_group[2] = i / p.group[0] / p.group[1];
    p.index = i;
    p.lane = i % SIMD;
    p.simd = i / SIMD;
    fiber.position = p;
    fiber.state = READY;
    make_context(fiber.context, stack_of(s.stacks, i), fiber_main);
  }
  s.live = s.count;
  uint32_t* words = reinterpret_cast<uint32_t*>(s.arena);
  for (uint64_t i = 0; i < s.arena_used / 4; ++i) words[i] = POISON;
}

void run_group() {
  bool more = true;
  while (more && !s.stop) {
    bool ran = false;
    arrange(s.order, s.count);
    for (uint32_t i = 0; i < s.count && !s.stop; ++i) {
      Fiber& fiber = s.fibers[s.order[i]];
      if (fiber.state != READY) continue;
      s.current = &fiber;
      switch_context(s.scheduler, fiber.context);
      s.current = nullptr;
      ran = true;
    }
    if (!ran && !s.stop) more = release();
  }
}

// A fault inside a fiber ends the launch; any other goes to whoever handled it before.
struct sigaction previous[4];
const int SIGNALS[4] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};

void on_signal(int number, siginfo_t* info, void*) {
  if (s.current && pthread_equal(pthread_self(), s.runner)) {
    s.launch->report.address = reinterpret_cast<uint64_t>(info->si_addr);
    fail(number == SIGFPE ? DIVISION : FAULT);
  }
  for (int i = 0; i < 4; ++i) {
    if (SIGNALS[i] == number) sigaction(number, &previous[i], nullptr);
  }
}

void run_grid() {
  Launch& launch = *s.launch;
  uint32_t groups[3];
  for (int d = 0; d < 3; ++d) groups[d] = (launch.grid[d] + launch.group[d] - 1) / launch.group[d];
  const uint64_t total = uint64_t(groups[0]) * groups[1] * groups[2];
  // A random order of groups: steps of a number that shares no factor with their count.
  uint64_t step = total / 2 + next_random() % (total + 1);
  for (bool shared = true; launch.order == RANDOM && shared;) {
    uint64_t a = ++step, b = total;
    while (b) {
      uint64_t rest = a % b;
      a = b;
      b = rest;
    }
    shared = a != 1;
  }
  uint64_t next = 0;
  for (uint64_t i = 0; i < total && !s.stop; ++i) {
    uint64_t g = launch.order == DESCENDING ? total - 1 - i : i;
    if (launch.order == RANDOM) g = next = (next + step) % total;
    s.group_index = uint32_t(g);
    const uint32_t group[3] = {uint32_t(g % groups[0]), uint32_t(g / groups[0] % groups[1]),
                               uint32_t(g / groups[0] / groups[1])};
    start_group(group, groups);
    shadow_group();
    run_group();
    launch.threads_run += s.count;
  }
}

void lay_out_nothing() {
  memset(s.arrays, 0, sizeof(s.arrays));
  s.n_arrays = 0;
  s.arena_used = GAP;
  s.arrays_bytes = 0;
}

bool prepare() {
  if (!s.stacks) s.stacks = allocate_stacks();
  if (!s.fibers) s.fibers = static_cast<Fiber*>(calloc(MAX_THREADS, sizeof(Fiber)));
  if (!s.arena) s.arena = static_cast<char*>(aligned_alloc(64, ARENA_BYTES));
  return s.stacks && s.fibers && s.arena;
}

}  // namespace emulator

using namespace emulator;

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT uint32_t mtl_run(Launch* launch) {
  s.launch = launch;
  s.stop = false;
  s.current = nullptr;
  s.random = launch->seed * 0x9e3779b97f4a7c15u + 0x2545f4914f6cdd1du;
  s.runner = pthread_self();
  lay_out_nothing();
  if (!prepare() || !shadow_open()) return launch->report.failure = NO_MEMORY;

  static char alternate[64 << 10];
  stack_t stack = {}, old_stack;
  stack.ss_sp = alternate;
  stack.ss_size = sizeof(alternate);
  sigaltstack(&stack, &old_stack);
  struct sigaction action = {};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (int i = 0; i < 4; ++i) sigaction(SIGNALS[i], &action, &previous[i]);
  const uint64_t rounding = set_denormals(launch->flush);
  run_grid();
  restore_denormals(rounding);
  for (int i = 0; i < 4; ++i) sigaction(SIGNALS[i], &previous[i], nullptr);
  sigaltstack(&old_stack, nullptr);

  shadow_close();
  launch->threadgroup_bytes = s.arrays_bytes;
  return launch->report.failure;
}

EXPORT uint64_t mtl_size(uint32_t which) {
  return which == 0 ? sizeof(Launch) : which == 1 ? sizeof(Buffer) : sizeof(Report);
}

EXPORT void mtl_threadgroup_barrier(uint32_t flags, int line, int column) {
  s.current->flags = flags;
  s.current->line = line;
  s.current->column = column;
  wait(AT_BARRIER);
}

EXPORT void mtl_simdgroup_barrier(uint32_t flags, int line, int column) {
  s.current->flags = flags;
  s.current->line = line;
  s.current->column = column;
  wait(AT_SIMD_BARRIER);
}

EXPORT uint32_t mtl_gather(const void* value, void* all, uint32_t bytes, int line, int column) {
  Fiber& fiber = *s.current;
  fiber.value = value;
  fiber.all = all;
  fiber.bytes = bytes;
  fiber.flags = 0;
  fiber.line = line;
  fiber.column = column;
  wait(AT_GATHER);
  return fiber.active;
}

EXPORT uint32_t mtl_lane() { return s.current->position.lane; }

EXPORT void mtl_inactive_lane(uint32_t lane, int line, int column) {
  Report& report = s.launch->report;
  report.other_thread = lane;
  report.line = line;
  report.column = column;
  fail(INACTIVE_LANE);
}

// Where threadgroup array `index` of the kernel lives. The first thread that comes by places it.
EXPORT void* mtl_threadgroup_array(uint32_t index, uint64_t bytes, uint64_t alignment, int line) {
  Array& array = s.arrays[index < MAX_ARRAYS ? index : MAX_ARRAYS - 1];
  if (!array.used) {
    s.arrays_bytes += bytes;
    s.launch->report.line = line;
    s.launch->report.bytes = uint32_t(s.arrays_bytes);
    if (index >= MAX_ARRAYS || s.arrays_bytes > s.launch->threadgroup_limit) {
      fail(THREADGROUP_MEMORY);
    }
    const uint64_t placed = (s.arena_used + alignment - 1) / alignment * alignment;
    array.begin = placed;
    array.bytes = bytes;
    array.used = true;
    if (index >= s.n_arrays) s.n_arrays = index + 1;
    uint64_t end = (placed + bytes + GAP + 63) / 64 * 64;
    for (uint64_t i = s.arena_used / 4; i < end / 4; ++i) {
      reinterpret_cast<uint32_t*>(s.arena)[i] = POISON;
    }
    s.arena_used = end;
  }
  return s.arena + array.begin;
}

EXPORT void mtl_atomic(const volatile void* address, uint32_t bytes) {
  if (s.launch->checked) shadow_access(address, bytes, true, true);
}

#include "callbacks.h"
