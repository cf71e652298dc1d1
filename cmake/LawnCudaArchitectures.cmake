# SPDX-License-Identifier: Apache-2.0

include_guard()

# Sets `result` to the architectures to compile for with `nvcc`, in the form of TORCH_CUDA_ARCH_LIST, and `reason` to why: those of
# the GPUs that are there, if nvcc knows all of them, else those GPUs of LibTorch's wheels that this version of nvcc knows. Code for
# 8.0 runs on 8.6 and 8.9, too, and newer GPUs than the last one get their code from the driver (PTX).
function(lawn_cuda_architectures result reason nvcc)
  set(because "no GPU was found here")
  execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader
                  OUTPUT_VARIABLE text RESULT_VARIABLE status ERROR_QUIET)
  if(status EQUAL 0 AND text MATCHES "^([0-9]+\\.[0-9]\r?\n)+$")
    string(REGEX MATCHALL "[0-9.]+" architectures "${text}")
    list(REMOVE_DUPLICATES architectures)
    list(SORT architectures COMPARE NATURAL)
    execute_process(COMMAND "${nvcc}" --list-gpu-arch OUTPUT_VARIABLE known ERROR_QUIET)
    foreach(architecture IN LISTS architectures)
      string(REPLACE "." "" number "${architecture}")
      if(NOT known MATCHES "compute_${number}\r?\n")
        set(because "${nvcc} does not know the architecture ${architecture} of a GPU here")
        set(architectures "")
        break()
      endif()
    endforeach()
    if(architectures)
      set(${result} "${architectures}" PARENT_SCOPE)
      set(${reason} "the GPUs here" PARENT_SCOPE)
      return()
    endif()
  endif()

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
  set(${reason} "lawn's own list, since ${because}" PARENT_SCOPE)
endfunction()
