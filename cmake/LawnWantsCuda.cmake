# SPDX-License-Identifier: Apache-2.0
#
# Decides by the option LAWN_CUDA whether programs have lawn's CUDA kernels: OFF never, ON or an error, AUTO where LibTorch is a CUDA
# build and there are kernels that were compiled when lawn was installed (LAWN_INSTALL_KERNELS), or an nvcc to compile them. Sets
#   LAWN_CUDA_COMPILER      to the nvcc, if there is one
#   LAWN_INSTALLED_KERNELS  to their object file, if they are to be used; LAWN_CUDA_RUNTIME is then what it links to
#   LAWN_NO_KERNELS         to why there are no kernels, or to nothing

set(LAWN_CUDA AUTO CACHE STRING "Compile lawn's CUDA kernels: AUTO (where there is a LibTorch with CUDA and an nvcc), ON or OFF")
set_property(CACHE LAWN_CUDA PROPERTY STRINGS AUTO ON OFF)
if(NOT LAWN_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "lawn: expected AUTO, ON or OFF as LAWN_CUDA, got ${LAWN_CUDA}")
endif()

foreach(LAWN_NAMED IN ITEMS "${CMAKE_CUDA_COMPILER}" "$ENV{CUDACXX}") # which name a file, as CUDA_HOME and CUDA_PATH name a folder
  if(NOT LAWN_CUDA_COMPILER AND IS_ABSOLUTE "${LAWN_NAMED}" AND EXISTS "${LAWN_NAMED}" AND NOT IS_DIRECTORY "${LAWN_NAMED}")
    set(LAWN_CUDA_COMPILER "${LAWN_NAMED}" CACHE FILEPATH "nvcc" FORCE)
  endif()
endforeach()
find_program(LAWN_CUDA_COMPILER nvcc HINTS ENV CUDACXX ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
mark_as_advanced(LAWN_CUDA_COMPILER)
set(LAWN_NO_KERNELS "")
set(LAWN_INSTALLED_KERNELS "")
include("${CMAKE_CURRENT_LIST_DIR}/lawnKernels.cmake" OPTIONAL) # LAWN_COMPILED_KERNELS, _FOR architectures, _WITH_CUDA
if(LAWN_COMPILED_KERNELS AND LAWN_TORCH_HAS_CUDA AND NOT LAWN_CUDA STREQUAL "OFF")
  # As the wheels and the archives of pytorch.org have it. Another major version is another runtime.
  file(GLOB LAWN_CUDA_RUNTIME "${LAWN_TORCH_ROOT}/../nvidia/*/lib/libcudart.so.${LAWN_COMPILED_WITH_CUDA}"
       "${LAWN_TORCH_ROOT}/lib/libcudart*.so.${LAWN_COMPILED_WITH_CUDA}*")
  if(NOT LAWN_CUDA_RUNTIME)
    message(STATUS "lawn: the installed CUDA kernels are for CUDA ${LAWN_COMPILED_WITH_CUDA}, whose runtime is not beside LibTorch in "
                   "${LAWN_TORCH_ROOT}")
  elseif(NOT LAWN_CUDA_COMPILER OR "${TORCH_CUDA_ARCH_LIST}$ENV{TORCH_CUDA_ARCH_LIST}" STREQUAL "")
    list(GET LAWN_CUDA_RUNTIME 0 LAWN_CUDA_RUNTIME)
    set(LAWN_INSTALLED_KERNELS "${LAWN_COMPILED_KERNELS}") # else the project asks for architectures of its own
  endif()
endif()
if(LAWN_CUDA STREQUAL "OFF")
  set(LAWN_NO_KERNELS "LAWN_CUDA is OFF")
elseif(NOT LAWN_TORCH_HAS_CUDA)
  set(LAWN_NO_KERNELS "LibTorch is built without CUDA")
elseif(NOT LAWN_CUDA_COMPILER AND NOT LAWN_INSTALLED_KERNELS)
  set(LAWN_NO_KERNELS "there is no nvcc")
elseif(NOT LAWN_INSTALLED_KERNELS)
  set(LAWN_OLDEST_CUDA 12.1) # before, the parameters of a kernel had no room for a list of layers (kMaxParameterBytes)
  set(LAWN_WHO_ASKS "lawn's kernels ask")
  # This file of LibTorch's, which stands between it and nvcc, refuses an older toolkit than LibTorch's code takes.
  set(LAWN_TORCH_FILE "${LAWN_TORCH_ROOT}/share/cmake/Caffe2/public/cuda.cmake")
  set(LAWN_TORCH_NEEDS_NVTX "")
  if(EXISTS "${LAWN_TORCH_FILE}")
    file(STRINGS "${LAWN_TORCH_FILE}" LAWN_TORCH_ASKS REGEX "requires CUDA [0-9]+[.][0-9]+" LIMIT_COUNT 1)
    string(REGEX MATCH "requires CUDA ([0-9.]+[0-9])" LAWN_TORCH_ASKS "${LAWN_TORCH_ASKS}")
    if("${CMAKE_MATCH_1}" VERSION_GREATER LAWN_OLDEST_CUDA)
      set(LAWN_OLDEST_CUDA "${CMAKE_MATCH_1}")
      set(LAWN_WHO_ASKS "this LibTorch asks")
    endif()
    # It also asks for a library that CUDA 13 has no more: seen in 2.4.1 and 2.6.
    file(STRINGS "${LAWN_TORCH_FILE}" LAWN_TORCH_NEEDS_NVTX REGEX "CUDA::nvToolsExt" LIMIT_COUNT 1)
  endif()
  execute_process(COMMAND "${LAWN_CUDA_COMPILER}" --version OUTPUT_VARIABLE LAWN_CUDA_VERSION ERROR_QUIET)
  string(REGEX MATCH "release ([0-9.]+[0-9])" LAWN_CUDA_VERSION "${LAWN_CUDA_VERSION}")
  set(LAWN_CUDA_VERSION "${CMAKE_MATCH_1}")
  if(LAWN_CUDA_VERSION AND LAWN_CUDA_VERSION VERSION_LESS LAWN_OLDEST_CUDA)
    set(LAWN_NO_KERNELS "${LAWN_WHO_ASKS} for CUDA ${LAWN_OLDEST_CUDA} or later, and ${LAWN_CUDA_COMPILER} is of ${LAWN_CUDA_VERSION}")
  endif()
  if(LAWN_TORCH_NEEDS_NVTX AND NOT USE_SYSTEM_NVTX)
    get_filename_component(LAWN_CUDA_TOOLKIT "${LAWN_CUDA_COMPILER}" REALPATH)
    get_filename_component(LAWN_CUDA_TOOLKIT "${LAWN_CUDA_TOOLKIT}/../.." ABSOLUTE)
    find_library(LAWN_NVTOOLSEXT nvToolsExt HINTS "${LAWN_CUDA_TOOLKIT}" "${LAWN_CUDA_TOOLKIT}/targets/${CMAKE_SYSTEM_PROCESSOR}-linux"
                 PATH_SUFFIXES lib64 lib NO_CACHE)
    if(NOT LAWN_NVTOOLSEXT)
      set(LAWN_NO_KERNELS "this LibTorch asks for a CUDA toolkit with nvToolsExt, which ${LAWN_CUDA_TOOLKIT} has not")
    endif()
  endif()
endif()
if(LAWN_CUDA STREQUAL "ON" AND LAWN_NO_KERNELS)
  message(FATAL_ERROR "lawn: expected a LibTorch with CUDA and an nvcc (on the path, in CUDACXX, CUDA_HOME or CUDA_PATH, or in "
                      "/usr/local/cuda), since LAWN_CUDA is ON, but ${LAWN_NO_KERNELS}; LibTorch is in ${LAWN_TORCH_ROOT}. "
                      "-DLAWN_CUDA=AUTO goes on without kernels")
endif()
