// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include <sys/mman.h>

#include "tests/support/address_sanitizer.h"

#ifdef LAWN_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(__x86_64__) && !defined(CUDA_EMULATION_UCONTEXT)
#define CUDA_EMULATION_OWN_SWITCH 1
/// Saves what a call must preserve on the stack, leaves that stack at `*from`, goes on at `to`.
/// swapcontext would do the same, with two system calls each time, of which a test makes millions.
extern "C" void cuda_emulation_switch_stack(void** from, void* to);
__asm__(
    ".text\n"
    ".type cuda_emulation_switch_stack, @function\n"
    "cuda_emulation_switch_stack:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n"
    ".size cuda_emulation_switch_stack, . - cuda_emulation_switch_stack\n");
#else
#include <ucontext.h>
#endif

namespace cuda_emulation {

/// A place where code runs: the program's own stack, or one of 128 KB that is kept for reuse.
/// AddressSanitizer is told of every change between them.
class Fiber {
 public:
  static constexpr std::size_t kStackBytes = std::size_t{128} << 10;

  static constexpr std::size_t kGuardBytes = 4096;

  Fiber() = default;
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  ~Fiber() {
    if (stack_ != nullptr) munmap(stack_, kStackBytes);
  }

  /// Makes the next `switch_to` call `entry`, which must not return, whatever ran here before.
  void prepare(void (*entry)()) {
    if (stack_ == nullptr) {
      stack_ =
          mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      // The lowest page stays closed, so that a stack that is too small is seen.
      if (stack_ == MAP_FAILED || mprotect(stack_, kGuardBytes, PROT_NONE) != 0) __builtin_abort();
    }
#ifdef LAWN_ADDRESS_SANITIZER
    __asan_unpoison_memory_region(stack_, kStackBytes);
    fake_stack_ = nullptr;
#endif
    entry_ = entry;
#ifdef CUDA_EMULATION_OWN_SWITCH
    auto** top = reinterpret_cast<void**>(static_cast<char*>(stack_) + kStackBytes);
    *--top = nullptr;  // where a return address would be: keeps the entry's stack aligned
    *--top = reinterpret_cast<void*>(&Fiber::enter);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    place_ = top;
#else
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack_;
    context_.uc_stack.ss_size = kStackBytes;
    makecontext(&context_, &Fiber::enter, 0);
#endif
  }

  /// Goes on in `to`; returns when somebody goes on in this one.
  void switch_to(Fiber& to) {
    entering() = &to;
#ifdef LAWN_ADDRESS_SANITIZER
    const void* bottom = to.bottom();  // first: it sets the size
    __sanitizer_start_switch_fiber(&fake_stack_, bottom, to.size_);
#endif
#ifdef CUDA_EMULATION_OWN_SWITCH
    cuda_emulation_switch_stack(&place_, to.place_);
#else
    swapcontext(&context_, &to.context_);
#endif
    entered(this);
  }

 private:
  static Fiber*& entering() {
    static Fiber* fiber = nullptr;
    return fiber;
  }

  static void enter() {
    Fiber* self = entering();
    entered(self);
    self->entry_();
    __builtin_abort();
  }

  static void entered([[maybe_unused]] Fiber* self) {
#ifdef LAWN_ADDRESS_SANITIZER
    static Fiber* last = nullptr;  // the first to be left is the program's own stack
    const void* bottom = nullptr;
    std::size_t size = 0;
    __sanitizer_finish_switch_fiber(self->fake_stack_, &bottom, &size);
    if (last == nullptr) {
      program_bottom() = bottom;
      program_size() = size;
    }
    last = self;
#endif
  }

#ifdef LAWN_ADDRESS_SANITIZER
  static const void*& program_bottom() {
    static const void* bottom = nullptr;
    return bottom;
  }
  static std::size_t& program_size() {
    static std::size_t size = 0;
    return size;
  }
  const void* bottom() {
    if (stack_ != nullptr) {
      size_ = kStackBytes;
      return stack_;
    }
    size_ = program_size();
    return program_bottom();
  }
  void* fake_stack_ = nullptr;
  std::size_t size_ = 0;
#endif

  void* stack_ = nullptr;
  void (*entry_)() = nullptr;
#ifdef CUDA_EMULATION_OWN_SWITCH
  void* place_ = nullptr;
#else
  ucontext_t context_;
#endif
};

}  // namespace cuda_emulation
