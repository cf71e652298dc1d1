// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <type_traits>

#include <lawn/finite_math.h>

/// Compiles a loop both for the instruction set that every CPU has and for a wider one, and runs
/// the wider one if the machine has it. A consumer chooses the compile flags, and without `-march`
/// a compiler uses only SSE2, which is half as fast.
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

/// Stands before a loop: its iterations may run side by side, as OpenMP's clauses say. In a program
/// without OpenMP the loop stays as it is.
#if defined(_OPENMP)
#define LAWN_PRAGMA(...) _Pragma(#__VA_ARGS__)
#define LAWN_SIMD(...) LAWN_PRAGMA(omp simd __VA_ARGS__)
#else
#define LAWN_SIMD(...)
#endif

/// Runs `Loop::run(arguments...)`, compiled for any CPU.
template <class Loop, class... Arguments>
auto run_baseline(Arguments... arguments) {
  return Loop::run(arguments...);
}

/// Runs `Loop::run(arguments...)`, compiled for a CPU with AVX2. `run` is a LAWN_LOOP, since it
/// must be inlined here to be compiled for AVX2.
template <class Loop, class... Arguments>
LAWN_AVX2 auto run_avx2(Arguments... arguments) {
  return Loop::run(arguments...);
}

/// Runs `Loop::run(arguments...)` with the widest instruction set of this machine. Loops in
/// float64, in which nobody trains, are compiled only for any CPU, since every loop costs each
/// consumer compile time.
template <class Loop, class T, class... Arguments>
auto run_loop(T* elements, Arguments... arguments) {
  if constexpr (std::is_same_v<std::remove_const_t<T>, float>) {
    static const bool avx2 = has_avx2();
    if (avx2) return run_avx2<Loop>(elements, arguments...);
  }
  return run_baseline<Loop>(elements, arguments...);
}

}  // namespace lawn::sphere::cpu
