# SPDX-License-Identifier: Apache-2.0
#
# Decides by the option LAWN_CUDA whether lawn's CUDA kernels are compiled: OFF never, ON or an error, AUTO where LibTorch is a CUDA
# build and there is an nvcc. Sets LAWN_CUDA_COMPILER to the nvcc, if there is one, and LAWN_NO_KERNELS to why there are no kernels,
# or to nothing.

set(LAWN_CUDA AUTO CACHE STRING "Compile lawn's CUDA kernels: AUTO (where there is a LibTorch with CUDA and an nvcc), ON or OFF")
set_property(CACHE LAWN_CUDA PROPERTY STRINGS AUTO ON OFF)
if(NOT LAWN_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "lawn: expected AUTO, ON or OFF as LAWN_CUDA, got ${LAWN_CUDA}")
endif()

find_program(LAWN_CUDA_COMPILER nvcc HINTS ENV CUDACXX ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
mark_as_advanced(LAWN_CUDA_COMPILER)
set(LAWN_NO_KERNELS "")
if(LAWN_CUDA STREQUAL "OFF")
  set(LAWN_NO_KERNELS "LAWN_CUDA is OFF")
elseif(NOT LAWN_TORCH_HAS_CUDA)
  set(LAWN_NO_KERNELS "LibTorch is built without CUDA")
elseif(NOT LAWN_CUDA_COMPILER)
  set(LAWN_NO_KERNELS "there is no nvcc")
endif()
if(LAWN_CUDA STREQUAL "ON" AND LAWN_NO_KERNELS)
  message(FATAL_ERROR "lawn: expected a LibTorch with CUDA and an nvcc (on the path, in CUDACXX, CUDA_HOME or CUDA_PATH, or in "
                      "/usr/local/cuda), since LAWN_CUDA is ON, but ${LAWN_NO_KERNELS}; LibTorch is in ${LAWN_TORCH_ROOT}. "
                      "-DLAWN_CUDA=AUTO goes on without kernels")
endif()
