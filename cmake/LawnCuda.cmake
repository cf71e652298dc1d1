# SPDX-License-Identifier: Apache-2.0
#
# Compiles lawn's CUDA kernels, or takes those that were compiled when lawn was installed, and makes the target lawn::cuda of them.
# Where LawnWantsCuda.cmake says why not, that target is empty, and tensors on a GPU go through ATen. Included after the target
# lawn::lawn is there, by lawn's own build and by the installed lawnConfig.cmake.
#
# The kernels are one object file, compiled once in a project and put on the link line of every program and shared library that
# uses lawn, static libraries between them or not. A source handed over with the target would be compiled once for each target,
# in folders where CUDA may not be enabled, and a static library would bury it: nothing refers to it by name.

if(TARGET lawn::cuda)
  return()
endif()

add_library(lawn::cuda INTERFACE IMPORTED GLOBAL)
get_target_property(LAWN_INCLUDE_DIR lawn::lawn HEADER_DIRS)
set(LAWN_KERNELS "${LAWN_INCLUDE_DIR}/lawn/kernels.cu")
# The flags of the surrounding project do not apply to this object: neither warnings as errors (below) nor, in CMAKE_CUDA_FLAGS,
# --use_fast_math, or -Ofast for the host's half. The architectures are compiled side by side.
set(LAWN_CUDA_OPTIONS --threads=4 --ftz=false --prec-div=true --prec-sqrt=true -Xcompiler=-fno-finite-math-only)

if(LAWN_NO_KERNELS)
  message(STATUS "lawn: no CUDA kernels, since ${LAWN_NO_KERNELS}: tensors on a GPU go through ATen (LAWN_CUDA=${LAWN_CUDA}, of AUTO, "
                 "ON and OFF)")
elseif(LAWN_INSTALLED_KERNELS)
  message(STATUS "lawn: CUDA kernels for the architectures ${LAWN_COMPILED_FOR}, compiled when lawn was installed (LAWN_CUDA=${LAWN_CUDA}; "
                 "-DLAWN_CUDA=OFF does without, TORCH_CUDA_ARCH_LIST and nvcc compile for others)")
  target_link_libraries(lawn::cuda INTERFACE "${LAWN_INSTALLED_KERNELS}" "${LAWN_CUDA_RUNTIME}")
else()
  message(STATUS "lawn: CUDA kernels for the architectures ${TORCH_CUDA_ARCH_LIST}, from ${LAWN_ARCHITECTURES_FROM} "
                 "(LAWN_CUDA=${LAWN_CUDA}; -DLAWN_CUDA=OFF does without)")
  add_library(lawn_cuda OBJECT "${LAWN_KERNELS}")
  target_include_directories(lawn_cuda PRIVATE "${LAWN_INCLUDE_DIR}")
  set_target_properties(
    lawn_cuda
    PROPERTIES POSITION_INDEPENDENT_CODE ON # a shared library may take it
               CUDA_STANDARD 17 # also where the programs are in C++20, which CMake 3.25 does not know of nvcc
               CUDA_ARCHITECTURES OFF # LibTorch has put them into CMAKE_CUDA_FLAGS
               CUDA_SEPARABLE_COMPILATION OFF # the linker of a program in C++ knows nothing of it
               COMPILE_OPTIONS "$<$<COMPILE_LANG_AND_ID:CUDA,NVIDIA>:${LAWN_CUDA_OPTIONS}>"
               COMPILE_WARNING_AS_ERROR OFF)
  # The runtime that LibTorch uses, so that there is one in a program.
  target_link_libraries(lawn::cuda INTERFACE "$<TARGET_OBJECTS:lawn_cuda>" CUDA::cudart)
  add_dependencies(lawn::cuda lawn_cuda) # Makefiles, other than Ninja's files, know no other target's objects
endif()
