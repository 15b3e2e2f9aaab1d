// Fibers: one stack per Metal thread, switched by hand on x86-64 and aarch64.
//
// A switch saves what a function call keeps (callee-saved registers) and nothing else; the state
// of the floating-point unit is that of the launch, and never changed by a kernel.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <ucontext.h>

namespace emulator {

// Recursion is refused, so depth is bounded; a page below each stack faults if it is not enough.
constexpr size_t STACK_BYTES = 256 << 10;
constexpr size_t GUARD_BYTES = 64 << 10;
constexpr unsigned MAX_THREADS = 1024;

#if defined(__x86_64__)

struct Context {
  void* stack_pointer;
};

extern "C" void mtl_switch(void** save, void* load);
asm(R"(
.text
.globl mtl_switch
.hidden mtl_switch
.type mtl_switch,@function
mtl_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  retq
.size mtl_switch,.-mtl_switch
)");

inline void switch_context(Context& from, Context& to) {
  mtl_switch(&from.stack_pointer, to.stack_pointer);
}

inline void make_context(Context& context, char* stack, void (*entry)()) {
  void** top = reinterpret_cast<void**>(stack + STACK_BYTES);
  *--top = nullptr;  // the caller's slot: keeps the stack aligned as after a call
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  context.stack_pointer = top;
}

#elif defined(__aarch64__)

struct Context {
  void* stack_pointer;
};

extern "C" void mtl_switch(void** save, void* load);
asm(R"(
.text
.globl mtl_switch
.hidden mtl_switch
.type mtl_switch,%function
mtl_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size mtl_switch,.-mtl_switch
)");

inline void switch_context(Context& from, Context& to) {
  mtl_switch(&from.stack_pointer, to.stack_pointer);
}

inline void make_context(Context& context, char* stack, void (*entry)()) {
  uint64_t* top = reinterpret_cast<uint64_t*>(stack + STACK_BYTES) - 20;
  for (int i = 0; i < 20; ++i) top[i] = 0;
  top[11] = reinterpret_cast<uint64_t>(entry);  // x30: where `ret` goes
  context.stack_pointer = top;
}

#else

typedef ucontext_t Context;

inline void switch_context(Context& from, Context& to) { swapcontext(&from, &to); }

inline void make_context(Context& context, char* stack, void (*entry)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = STACK_BYTES;
  context.uc_link = nullptr;
  makecontext(&context, entry, 0);
}

#endif

// Address space for every stack, each with a guard below; pages are committed when touched.
inline char* allocate_stacks() {
  const size_t each = STACK_BYTES + GUARD_BYTES;
  void* memory = mmap(nullptr, each * MAX_THREADS, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  char* first = static_cast<char*>(memory);
  for (unsigned i = 0; i < MAX_THREADS; ++i) mprotect(first + each * i, GUARD_BYTES, PROT_NONE);
  return first;
}

inline char* stack_of(char* stacks, unsigned i) {
  return stacks + (STACK_BYTES + GUARD_BYTES) * i + GUARD_BYTES;
}

}  // namespace emulator
