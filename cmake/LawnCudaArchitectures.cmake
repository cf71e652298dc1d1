# SPDX-License-Identifier: Apache-2.0

include_guard()

# Sets `result` to the architectures to compile for with `nvcc`, in the form of TORCH_CUDA_ARCH_LIST: those GPUs of LibTorch's
# wheels that this version of nvcc knows. Code for 8.0 runs on 8.6 and 8.9, too, and newer GPUs than the last one get their code
# from the driver (PTX).
function(lawn_cuda_architectures result nvcc)
  execute_process(COMMAND "${nvcc}" --version OUTPUT_VARIABLE text RESULT_VARIABLE status ERROR_QUIET)
  if(NOT status EQUAL 0 OR NOT text MATCHES "release ([0-9]+\\.[0-9]+)")
    message(WARNING "lawn: ${nvcc} does not tell its version; compiling the CUDA kernels for architectures that CUDA 12.8 and "
                    "later know. Pass -DTORCH_CUDA_ARCH_LIST=9.0, say, for others")
    set(CMAKE_MATCH_1 12.8)
  endif()
  if(CMAKE_MATCH_1 VERSION_GREATER_EQUAL 12.8)
    set(architectures 7.5 8.0 9.0 10.0+PTX)
  elseif(CMAKE_MATCH_1 VERSION_GREATER_EQUAL 11.8)
    set(architectures 7.5 8.0 9.0+PTX)
  else()
    set(architectures 7.5 8.0+PTX)
  endif()
  set(${result} "${architectures}" PARENT_SCOPE)
endfunction()
