# SPDX-License-Identifier: Apache-2.0
#
# find_package(lawn [COMPONENTS mpi]): with the component, the target lawn::mpi beside lawn::lawn.

cmake_policy(VERSION 3.25) # whatever the project's; find_package restores that
include("${CMAKE_CURRENT_LIST_DIR}/LawnTorch.cmake") # LibTorch and OpenMP, as the target lawn::torch
if(NOT TARGET lawn::torch)
  set(lawn_FOUND FALSE)
  set(lawn_NOT_FOUND_MESSAGE "it found no LibTorch; pass -DCMAKE_PREFIX_PATH=/path/to/libtorch")
  return()
endif()
include("${CMAKE_CURRENT_LIST_DIR}/lawnTargets.cmake")
include("${CMAKE_CURRENT_LIST_DIR}/LawnCuda.cmake") # the CUDA kernels, as the target lawn::cuda
set(lawn_FOUND TRUE)
foreach(LAWN_COMPONENT IN LISTS lawn_FIND_COMPONENTS)
  if(LAWN_COMPONENT STREQUAL "mpi")
    include("${CMAKE_CURRENT_LIST_DIR}/LawnMpi.cmake")
  endif()
  if(lawn_FIND_REQUIRED_${LAWN_COMPONENT} AND NOT lawn_${LAWN_COMPONENT}_FOUND)
    set(lawn_FOUND FALSE)
    set(lawn_NOT_FOUND_MESSAGE "its component ${LAWN_COMPONENT} was not found (it has one: mpi, which needs an MPI-3)")
  endif()
endforeach()
