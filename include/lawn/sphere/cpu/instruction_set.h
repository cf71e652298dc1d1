// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <type_traits>

#include <lawn/finite_math.h>

/// Compiles a loop for the instruction set that every CPU has and for a wider one, and takes the
/// wider where the machine has it. A consumer's own compile flags are not ours to choose, and
/// without `-march` a compiler uses SSE2 alone, which is half as fast.
namespace lawn::sphere::cpu {

#if defined(__x86_64__) && defined(__GNUC__)  // also Clang
#define LAWN_AVX2 __attribute__((target("avx2")))
inline bool has_avx2() { return __builtin_cpu_supports("avx2") != 0; }
#else
#define LAWN_AVX2
inline bool has_avx2() { return false; }
#endif

#if defined(__GNUC__)
#define LAWN_LOOP __attribute__((always_inline)) inline
#else
#define LAWN_LOOP inline
#endif

/// In front of a loop: its iterations may go side by side, as far as OpenMP's clauses say. In a program
/// without OpenMP the loop stays as it is.
#if defined(_OPENMP)
#define LAWN_PRAGMA(...) _Pragma(#__VA_ARGS__)
#define LAWN_SIMD(...) LAWN_PRAGMA(omp simd __VA_ARGS__)
#else
#define LAWN_SIMD(...)
#endif

/// `Loop::run(arguments...)` for any CPU.
template <class Loop, class... Arguments>
auto run_baseline(Arguments... arguments) {
  return Loop::run(arguments...);
}

/// `Loop::run(arguments...)` for a CPU with AVX2. `run` is a LAWN_LOOP: it has to be inlined here
/// to be compiled so.
template <class Loop, class... Arguments>
LAWN_AVX2 auto run_avx2(Arguments... arguments) {
  return Loop::run(arguments...);
}

/// `Loop::run(arguments...)`, as fast as this machine can; float64, which nobody trains in, for any
/// CPU, since every loop costs each consumer compile time.
template <class Loop, class T, class... Arguments>
auto run_loop(T* elements, Arguments... arguments) {
  if constexpr (std::is_same_v<std::remove_const_t<T>, float>) {
    static const bool avx2 = has_avx2();
    if (avx2) return run_avx2<Loop>(elements, arguments...);
  }
  return run_baseline<Loop>(elements, arguments...);
}

}  // namespace lawn::sphere::cpu
