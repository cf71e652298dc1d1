# SPDX-License-Identifier: Apache-2.0

include("${CMAKE_CURRENT_LIST_DIR}/LawnTorch.cmake") # LibTorch and OpenMP, as the target lawn::torch
include("${CMAKE_CURRENT_LIST_DIR}/lawnTargets.cmake")
include("${CMAKE_CURRENT_LIST_DIR}/LawnCuda.cmake") # the CUDA kernels, as the target lawn::cuda
set(lawn_FOUND TRUE)
