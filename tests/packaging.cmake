# SPDX-License-Identifier: Apache-2.0
#
# Tests of what surrounds the library: the package, programs that must not compile, what a
# compile has to read, the formatting.

find_package(Python3 REQUIRED COMPONENTS Interpreter)
set(scripts "${PROJECT_SOURCE_DIR}/scripts")
set(main "${CMAKE_CURRENT_SOURCE_DIR}/support/main.cpp")

# --- Projects that use lawn: installed, or from source ---------------------------------------------------------------

set(prefix "${CMAKE_CURRENT_BINARY_DIR}/prefix")
add_test(NAME install COMMAND "${CMAKE_COMMAND}" --install "${PROJECT_BINARY_DIR}" --prefix "${prefix}")
set_tests_properties(install PROPERTIES FIXTURES_SETUP installed)

# What programs that use lawn in this environment have of the CUDA kernels, and in how many threads at::parallel_for runs in them.
set(kernels none)
if(TARGET lawn_cuda)
  set(kernels kernels)
endif()
set(threads 1)
if(OpenMP_CXX_FOUND)
  set(threads 2)
endif()

# clang, where it is there, compiles what includes all of LibTorch in half of gcc's time: the projects that find an installed lawn and
# no CUDA take it. Its OpenMP runtime, if it has one, is not that of LibTorch's wheel: see LawnTorch.cmake. `.ci/run` builds one of
# them with gcc, too, where clang is hidden.
find_program(LAWN_CLANG NAMES clang++ clang++-14 clang++-15 clang++-16 clang++-17 clang++-18 clang++-19 clang++-20)
set(consumer_compiler "${CMAKE_CXX_COMPILER}")
set(consumer_threads ${threads})
if(LAWN_CLANG)
  set(consumer_compiler "${LAWN_CLANG}")
  execute_process(COMMAND "${LAWN_CLANG}" -fopenmp=libomp -include omp.h -fsyntax-only -x c++ /dev/null
                  RESULT_VARIABLE without_openmp OUTPUT_QUIET ERROR_QUIET)
  set(consumer_threads 2)
  if(without_openmp OR CMAKE_DISABLE_FIND_PACKAGE_OpenMP)
    set(consumer_threads 1)
  endif()
endif()

# What this build has found, and what it was told not to find; nothing of what it has looked for in vain.
set(consumer_options "-DTorch_DIR=${Torch_DIR}")
if(LAWN_CCACHE)
  list(APPEND consumer_options "-DCMAKE_CXX_COMPILER_LAUNCHER=${LAWN_CCACHE}")
endif()
if(NOT TARGET lawn_cuda)
  list(APPEND consumer_options -DLAWN_CUDA=OFF)
endif()
foreach(variable CMAKE_DISABLE_FIND_PACKAGE_MPI CMAKE_DISABLE_FIND_PACKAGE_OpenMP CMAKE_DISABLE_FIND_PACKAGE_ZLIB
                 CMAKE_FIND_USE_CMAKE_SYSTEM_PATH)
  if(DEFINED ${variable})
    list(APPEND consumer_options "-D${variable}=${${variable}}")
  endif()
endforeach()

# Configures and builds the project in `folder`, or one TARGET of it, and runs `program`; arguments after CONFIGURE go to the
# configuration, those after RUN to the program. With OURS the compiler is this build's, and so is the GENERATOR without another.
function(lawn_add_consumer_test name folder program)
  cmake_parse_arguments(PARSE_ARGV 3 argument "OURS" "TARGET;GENERATOR" "CONFIGURE;RUN")
  if(NOT argument_GENERATOR)
    set(argument_GENERATOR "${CMAKE_GENERATOR}")
  endif()
  if(argument_OURS)
    set(consumer_compiler "${CMAKE_CXX_COMPILER}")
  endif()
  if(argument_TARGET)
    list(PREPEND argument_TARGET --build-target)
  endif()
  add_test(
    NAME consumer_${name}
    COMMAND
      "${CMAKE_CTEST_COMMAND}" --build-and-test "${folder}" "${CMAKE_CURRENT_BINARY_DIR}/consumer/${name}"
      --build-noclean --build-generator "${argument_GENERATOR}" --build-options "-DCMAKE_CXX_COMPILER=${consumer_compiler}"
      ${consumer_options} ${argument_CONFIGURE} ${argument_TARGET} --test-command "${program}" ${argument_RUN})
endfunction()

# With the kernels compiled from source, for one architecture, and below those that were installed; they would show nothing that is
# new elsewhere. By make, where it is there: CMake's default, and stricter than Ninja with objects of other targets.
find_program(LAWN_MAKE NAMES gmake make)
set(fetch_content fetch_content)
if(LAWN_MAKE)
  set(fetch_content fetch_content_by_make)
  set(by_make GENERATOR "Unix Makefiles")
endif()
lawn_add_consumer_test(${fetch_content} "${CMAKE_CURRENT_SOURCE_DIR}/consumer" consumer OURS ${by_make}
                       CONFIGURE "-DLAWN_SOURCE_DIR=${PROJECT_SOURCE_DIR}" -DTORCH_CUDA_ARCH_LIST=9.0 RUN ${kernels} ${threads})
lawn_add_consumer_test(find_package "${CMAKE_CURRENT_SOURCE_DIR}/consumer" consumer
                       CONFIGURE "-Dlawn_ROOT=${prefix}" -DLAWN_CUDA=OFF RUN none ${consumer_threads})
lawn_add_consumer_test(quickstart "${PROJECT_SOURCE_DIR}/examples" quickstart TARGET quickstart
                       CONFIGURE "-Dlawn_ROOT=${prefix}" -DLAWN_CUDA=OFF)
lawn_add_consumer_test(trial "${CMAKE_CURRENT_SOURCE_DIR}/consumer_trial" trial CONFIGURE "-Dlawn_ROOT=${prefix}" -DLAWN_CUDA=OFF)
set_tests_properties(consumer_trial PROPERTIES ENVIRONMENT OMP_NUM_THREADS=1)
# The full programs are only configured by themselves: what they are made of is compiled and run by this build.
add_test(NAME consumer_cifar10
         COMMAND "${CMAKE_COMMAND}" -S "${PROJECT_SOURCE_DIR}/examples/apps/cifar10" -B "${CMAKE_CURRENT_BINARY_DIR}/consumer/cifar10"
                 -G "${CMAKE_GENERATOR}" "-DCMAKE_CXX_COMPILER=${consumer_compiler}" ${consumer_options} "-Dlawn_ROOT=${prefix}" -DLAWN_CUDA=OFF)

# A static library, a shared one and a program's own code in a program, and a program that has lawn from its static library alone; in
# C++20, which the kernels, that are there, are not.
set(libraries "${CMAKE_CURRENT_SOURCE_DIR}/consumer_libraries")
lawn_add_consumer_test(libraries "${libraries}" "${CMAKE_CTEST_COMMAND}" OURS
                       CONFIGURE "-Dlawn_ROOT=${prefix}" -DEXPECTED=${kernels}\;${threads} -DCMAKE_CXX_STANDARD=20 RUN --verbose)
set_tests_properties(consumer_libraries PROPERTIES ENVIRONMENT TORCH_CUDA_ARCH_LIST=) # it would have them compiled anew

# Without what lawn can do without. The LibTorch without CUDA is made up: no such wheel is at hand.
lawn_add_consumer_test(without_openmp "${libraries}" alone TARGET alone
                       CONFIGURE "-Dlawn_ROOT=${prefix}" -DLAWN_CUDA=OFF -DCMAKE_DISABLE_FIND_PACKAGE_OpenMP=ON
                       RUN none 1)
set(without_cuda "${CMAKE_CURRENT_BINARY_DIR}/libtorch_without_cuda")
lawn_add_consumer_test(libtorch_without_cuda "${libraries}" alone TARGET alone
                       CONFIGURE "-Dlawn_ROOT=${prefix}" "-DTorch_DIR=${without_cuda}/torch/share/cmake/Torch" RUN none ${consumer_threads})
add_test(NAME libtorch_without_cuda
         COMMAND "${Python3_EXECUTABLE}" "${CMAKE_CURRENT_SOURCE_DIR}/support/cpu_only_libtorch.py" "${LAWN_TORCH_ROOT}"
                 "${without_cuda}" "${CMAKE_CXX_COMPILER}")
set_tests_properties(libtorch_without_cuda PROPERTIES FIXTURES_SETUP libtorch_without_cuda)
if(NOT LAWN_TORCH_HAS_CUDA)
  set_tests_properties(libtorch_without_cuda consumer_libtorch_without_cuda PROPERTIES DISABLED ON) # every test is this one
endif()

# With MPI, installed and from source; a program on two ranks. Without, lawn says what its package lacks.
if(TARGET lawn::mpi AND MPIEXEC_EXECUTABLE)
  foreach(source find_package fetch_content)
    set(lawn_from "-Dlawn_ROOT=${prefix}")
    if(source STREQUAL "fetch_content")
      set(lawn_from "-DLAWN_SOURCE_DIR=${PROJECT_SOURCE_DIR}")
    endif()
    lawn_add_consumer_test(mpi_${source} "${CMAKE_CURRENT_SOURCE_DIR}/consumer_mpi" "${MPIEXEC_EXECUTABLE}"
                           CONFIGURE "${lawn_from}" -DLAWN_CUDA=OFF RUN ${MPIEXEC_NUMPROC_FLAG} 2 ./consumer_mpi)
    set_tests_properties(consumer_mpi_${source} PROPERTIES ENVIRONMENT "${mpi_environment}")
  endforeach()
  set_tests_properties(consumer_mpi_find_package PROPERTIES FIXTURES_REQUIRED installed)
else()
  foreach(source find_package fetch_content)
    lawn_skip_test(consumer_mpi_${source} "there is no MPI, or nothing to run ranks with")
  endforeach()
endif()
add_test(NAME consumer_without_mpi
         COMMAND "${CMAKE_COMMAND}" -S "${CMAKE_CURRENT_SOURCE_DIR}/consumer_mpi" --fresh
                 -B "${CMAKE_CURRENT_BINARY_DIR}/consumer/without_mpi" -G "${CMAKE_GENERATOR}"
                 "-DCMAKE_CXX_COMPILER=${consumer_compiler}" ${consumer_options} "-Dlawn_ROOT=${prefix}"
                 -DLAWN_CUDA=OFF -DCMAKE_DISABLE_FIND_PACKAGE_MPI=ON)
set_tests_properties(consumer_without_mpi PROPERTIES FIXTURES_REQUIRED installed
                     PASS_REGULAR_EXPRESSION "its component mpi was not found")

# What the package refuses, and what it says of kernels. Nothing is built; no LibTorch is loaded but the made-up ones.
function(lawn_add_refusal_test name expected)
  add_test(NAME consumer_${name}
           COMMAND "${CMAKE_COMMAND}" -S "${CMAKE_CURRENT_SOURCE_DIR}/consumer" --fresh
                   -B "${CMAKE_CURRENT_BINARY_DIR}/consumer/${name}" -G "${CMAKE_GENERATOR}" "-DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER}"
                   ${consumer_options} "-Dlawn_ROOT=${prefix}" ${ARGN})
  set_tests_properties(consumer_${name} PROPERTIES FIXTURES_REQUIRED installed PASS_REGULAR_EXPRESSION "${expected}")
endfunction()
foreach(version 2.4.0 2.16.0)
  file(WRITE "${CMAKE_CURRENT_BINARY_DIR}/libtorch-${version}/TorchConfig.cmake" "")
  file(WRITE "${CMAKE_CURRENT_BINARY_DIR}/libtorch-${version}/TorchConfigVersion.cmake" "set(PACKAGE_VERSION ${version})\n")
  lawn_add_refusal_test(libtorch_${version} "expected[ \n]+LibTorch[ \n]+2.4.1[ \n]+to[ \n]+2.15,[ \n]+found[ \n]+${version}"
                        "-DTorch_DIR=${CMAKE_CURRENT_BINARY_DIR}/libtorch-${version}")
endforeach()
# The first thing that a package says which find_package has taken is that the language is missing.
foreach(range "0.1...<2" "0.0.5...${PROJECT_VERSION}")
  lawn_add_refusal_test("of_versions_${range}" "enable[ \\n]+CXX" -DCONSUMER_LANGUAGES=C "-DCONSUMER_VERSION=${range}")
endforeach()
foreach(range "0.0.5...<${PROJECT_VERSION}" 0.0.9 9999)
  lawn_add_refusal_test("of_versions_${range}" "version:[ \\n]+${PROJECT_VERSION}" -DCONSUMER_LANGUAGES=C "-DCONSUMER_VERSION=${range}")
endforeach()
if(TARGET lawn_cuda)
  lawn_add_refusal_test(kernels_anew "architectures[ \n]+9.0,[ \n]+from[ \n]+TORCH_CUDA_ARCH_LIST" -DTORCH_CUDA_ARCH_LIST=9.0)
  lawn_add_refusal_test(kernels_of_old_gpus "7.0[ \n]+on[ \n]+in[ \n]+TORCH_CUDA_ARCH_LIST,.*got[ \n]+6.1" "-DTORCH_CUDA_ARCH_LIST=8.0 6.1")
endif()
lawn_add_refusal_test(without_cxx "found[ \n]+C;[ \n]+enable[ \n]+CXX" -DCONSUMER_LANGUAGES=C)

foreach(name find_package quickstart trial cifar10 libraries without_openmp)
  set_tests_properties(consumer_${name} PROPERTIES FIXTURES_REQUIRED installed)
endforeach()
set_tests_properties(consumer_libtorch_without_cuda PROPERTIES FIXTURES_REQUIRED "installed;libtorch_without_cuda")

add_test(NAME packages_test COMMAND "${Python3_EXECUTABLE}" -B "${CMAKE_CURRENT_SOURCE_DIR}/packages_test.py"
                                    "${PROJECT_BINARY_DIR}" "${Torch_DIR}" "${CMAKE_CXX_COMPILER}")

# --- Programs that must not compile -----------------------------------------------------------------------------------

# Each begins with `// expect: <what the compiler says>`; the control begins with `// compiles`.
file(GLOB programs CONFIGURE_DEPENDS compile_fail/*.cpp)
foreach(program IN LISTS programs)
  get_filename_component(name "${program}" NAME_WE)
  add_test(NAME compile_fail_${name} COMMAND "${Python3_EXECUTABLE}" "${scripts}/compile_fail.py"
                                             "${PROJECT_BINARY_DIR}" "${main}" "${program}")
endforeach()

# --- The CUDA kernels' registers --------------------------------------------------------------------------------------

# The toolkit's, or that which Triton brings beside LibTorch's wheel.
find_program(LAWN_CUOBJDUMP cuobjdump HINTS "${LAWN_CUDA_COMPILER}/.." "${LAWN_TORCH_ROOT}/../triton/backends/nvidia/bin")
if(TARGET lawn_cuda AND LAWN_CUOBJDUMP)
  set(cuda_resources "${Python3_EXECUTABLE}" "${scripts}/cuda_resources.py" --nvcc "${LAWN_CUDA_COMPILER}" --cuobjdump "${LAWN_CUOBJDUMP}")
  add_test(NAME cuda_resources COMMAND ${cuda_resources} "$<TARGET_OBJECTS:lawn_cuda>")
  foreach(fault spilling past_caches)
    add_test(NAME cuda_resources_finds_${fault}
             COMMAND ${cuda_resources} "${CMAKE_CURRENT_SOURCE_DIR}/support/${fault}.cu")
  endforeach()
  set_tests_properties(cuda_resources_finds_spilling PROPERTIES PASS_REGULAR_EXPRESSION "1 of 2 functions have a stack frame")
  set_tests_properties(cuda_resources_finds_past_caches PROPERTIES PASS_REGULAR_EXPRESSION "1 of 2 functions read past the caches")
else()
  lawn_skip_test(cuda_resources "there are no CUDA kernels, or no cuobjdump to read them with")
endif()

# What scripts/gpu.py says where there is no GPU; where there is one, it is hidden.
add_test(NAME gpu_script COMMAND "${Python3_EXECUTABLE}" "${scripts}/gpu.py" "${PROJECT_BINARY_DIR}")
set_tests_properties(gpu_script PROPERTIES ENVIRONMENT CUDA_VISIBLE_DEVICES= PASS_REGULAR_EXPRESSION "there is no GPU here")

# --- What a compile has to read, and formatting -----------------------------------------------------------------------------

add_test(NAME compile_size COMMAND "${Python3_EXECUTABLE}" "${scripts}/compile_size.py" "${PROJECT_BINARY_DIR}" "${main}" 8000)

add_test(NAME formatting COMMAND "${scripts}/format.sh")
set_tests_properties(formatting PROPERTIES SKIP_RETURN_CODE 77)

# --- Flags that drop checks for NaN -----------------------------------------------------------------------------------

add_test(NAME finite_math COMMAND "${Python3_EXECUTABLE}" "${scripts}/finite_math.py")

# Without the tests' precompiled header, which is compiled with other flags.
add_executable(fast_math_test fast_math.cpp)
target_link_libraries(fast_math_test PRIVATE lawn_test_main)
target_compile_options(fast_math_test PRIVATE -Ofast -fno-finite-math-only)
add_test(NAME fast_math_test COMMAND fast_math_test)

add_test(NAME cuda_fast_math COMMAND "${Python3_EXECUTABLE}" "${CMAKE_CURRENT_SOURCE_DIR}/support/cuda_fast_math.py"
                                     "${LAWN_KERNELS}" "${LAWN_CUDA_COMPILER}" ${LAWN_CUDA_OPTIONS})
set_tests_properties(cuda_fast_math PROPERTIES SKIP_RETURN_CODE 77)

# --- Where LibTorch is found ------------------------------------------------------------------------------------------

set(find_torch "${CMAKE_CURRENT_SOURCE_DIR}/find_torch/find_torch_test.py")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${find_torch}")
file(STRINGS "${find_torch}" cases REGEX "def test_")
foreach(case IN LISTS cases)
  string(REGEX REPLACE ".*def (test_[a-z_]+).*" "\\1" case "${case}")
  string(REGEX REPLACE "^test_" "find_torch_" name "${case}")
  add_test(NAME ${name} COMMAND "${Python3_EXECUTABLE}" -B "${find_torch}" "${CMAKE_COMMAND}" FindTorch.${case})
endforeach()

# --- What runs on a GPU, where there is none ----------------------------------------------------------------------------

add_test(NAME gpu_script_test COMMAND "${Python3_EXECUTABLE}" -B "${CMAKE_CURRENT_SOURCE_DIR}/gpu_script_test.py")
add_test(NAME release_check_test COMMAND "${Python3_EXECUTABLE}" -B "${CMAKE_CURRENT_SOURCE_DIR}/release_check_test.py")
add_test(NAME versions_script_test COMMAND "${Python3_EXECUTABLE}" -B "${CMAKE_CURRENT_SOURCE_DIR}/versions_script_test.py")
add_test(NAME cuda_architectures_test COMMAND "${Python3_EXECUTABLE}" -B "${CMAKE_CURRENT_SOURCE_DIR}/cuda_architectures_test.py"
                                              "${CMAKE_COMMAND}" "${LAWN_CUDA_COMPILER}")

# --- The layout of the headers ------------------------------------------------------------------------------------------

add_test(NAME layout_test COMMAND "${Python3_EXECUTABLE}" -B "${CMAKE_CURRENT_SOURCE_DIR}/layout_test.py")
