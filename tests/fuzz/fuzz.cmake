# SPDX-License-Identifier: Apache-2.0
#
# The readers of data files under libFuzzer, where the compiler is a clang with its runtime: the target fuzz_readers, and a short run
# of each reader as a test.

include(CheckCXXSourceCompiles)

set(readers idx cifar10 ratings text gzip)
set(CMAKE_REQUIRED_FLAGS "-fsanitize=fuzzer,address")
check_cxx_source_compiles(
  "#include <cstddef>\n#include <cstdint>\nextern \"C\" int LLVMFuzzerTestOneInput(const std::uint8_t*, std::size_t) { return 0; }"
  LAWN_HAS_FUZZER)
unset(CMAKE_REQUIRED_FLAGS)
if(NOT LAWN_HAS_FUZZER)
  foreach(reader IN LISTS readers)
    lawn_skip_test(fuzz_${reader} "the compiler has no libFuzzer; clang has")
  endforeach()
  return()
endif()

add_executable(fuzz_readers fuzz/readers_fuzz.cpp)
target_link_libraries(fuzz_readers PRIVATE lawn::lawn)
target_include_directories(fuzz_readers PRIVATE "${PROJECT_SOURCE_DIR}")
target_compile_options(fuzz_readers PRIVATE -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize=vptr -fno-sanitize-recover=all)
target_link_options(fuzz_readers PRIVATE -fsanitize=fuzzer,address,undefined)
if(ZLIB_FOUND)
  target_link_libraries(fuzz_readers PRIVATE ZLIB::ZLIB)
  target_compile_definitions(fuzz_readers PRIVATE LAWN_EXAMPLES_ZLIB)
endif()

foreach(reader IN LISTS readers)
  add_test(NAME fuzz_${reader} COMMAND "${Python3_EXECUTABLE}" -B "${CMAKE_CURRENT_SOURCE_DIR}/fuzz/fuzz.py"
                                       $<TARGET_FILE:fuzz_readers> ${reader})
  # LibTorch is not instrumented: a std::vector that it hands over looks overflown. What it keeps until its end is no leak.
  set_tests_properties(
    fuzz_${reader} PROPERTIES ENVIRONMENT "OMP_NUM_THREADS=1;ASAN_OPTIONS=detect_container_overflow=0:detect_leaks=0")
endforeach()
