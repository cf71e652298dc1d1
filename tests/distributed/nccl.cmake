# SPDX-License-Identifier: Apache-2.0
#
# lawn's adapter with c10d's NCCL backend: compiled wherever LibTorch has CUDA and NCCL's and CUDA's headers are found, run where
# there is a GPU, with one rank.

find_path(LAWN_NCCL_INCLUDE nccl.h HINTS "${LAWN_TORCH_ROOT}/../nvidia/nccl/include")
find_path(LAWN_CUDA_INCLUDE cuda_runtime_api.h HINTS "${LAWN_TORCH_ROOT}/../nvidia/cu13/include" /usr/local/cuda/include)
if(LAWN_TORCH_HAS_CUDA AND LAWN_NCCL_INCLUDE AND LAWN_CUDA_INCLUDE)
  lawn_add_test_program(distributed_nccl_gpu_test lawn_test_main distributed/nccl_gpu_test.cpp)
  lawn_add_test_entry(distributed_nccl_gpu_test distributed_nccl_gpu_test)
  target_include_directories(distributed_nccl_gpu_test SYSTEM PRIVATE "${LAWN_NCCL_INCLUDE}" "${LAWN_CUDA_INCLUDE}")
  target_compile_definitions(distributed_nccl_gpu_test PRIVATE USE_C10D_NCCL)
else()
  lawn_skip_test(distributed_nccl_gpu_test "NCCL's headers, CUDA's or a LibTorch with CUDA are missing")
endif()
