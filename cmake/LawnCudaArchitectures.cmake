# SPDX-License-Identifier: Apache-2.0

include_guard()

# Refuses entries of `architectures`, in the form of TORCH_CUDA_ARCH_LIST, that lawn's kernels cannot be compiled for: before 7.0 their
# parameters are too large (kMaxParameterBytes). "All" and "Common" have such ones among others. `from` says whose the list is.
function(lawn_refuse_old_architectures architectures from)
  string(REGEX MATCHALL "[^; \t]+" architectures "${architectures}")
  foreach(architecture IN LISTS architectures)
    if(architecture MATCHES "^([0-6]\\.|Kepler|Maxwell|Pascal|All$|Common$)")
      message(FATAL_ERROR "lawn: expected architectures from 7.0 on in ${from}, which lawn's CUDA kernels need, got ${architecture}; leave "
                          "it out (tensors on such a GPU go through ATen), or do without kernels, by -DLAWN_CUDA=OFF")
    endif()
  endforeach()
endfunction()

# Sets `result` to the architectures to compile for with `nvcc`, in the form of TORCH_CUDA_ARCH_LIST, and `reason` to why: those of
# the GPUs that are there, if nvcc, the kernels and this version of LibTorch take all of them, else those GPUs of LibTorch's wheels
# that nvcc and LibTorch know. Code for 8.0 runs on 8.6 and 8.9, too, and newer GPUs than the last one get their code from the driver
# (PTX).
function(lawn_cuda_architectures result reason nvcc torch_version)
  set(one_digit FALSE) # before 2.6, LibTorch's CMake files refuse such numbers as 10.0
  if(torch_version VERSION_LESS 2.6)
    set(one_digit TRUE)
  endif()
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
      if(architecture VERSION_LESS 7.0)
        set(because "lawn's CUDA kernels need 7.0 or later, and a GPU here has ${architecture}")
      elseif(one_digit AND architecture VERSION_GREATER_EQUAL 10.0)
        set(because "LibTorch ${torch_version} does not know the architecture ${architecture} of a GPU here")
      elseif(NOT known MATCHES "compute_${number}\r?\n")
        set(because "${nvcc} does not know the architecture ${architecture} of a GPU here")
      else()
        continue()
      endif()
      set(architectures "")
      break()
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
  if(CMAKE_MATCH_1 VERSION_GREATER_EQUAL 12.8 AND NOT one_digit)
    set(architectures 7.5 8.0 9.0 10.0+PTX)
  else()
    set(architectures 7.5 8.0 9.0+PTX)
  endif()
  set(${result} "${architectures}" PARENT_SCOPE)
  set(${reason} "lawn's own list, since ${because}" PARENT_SCOPE)
endfunction()
