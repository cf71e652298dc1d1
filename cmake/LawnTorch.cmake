# SPDX-License-Identifier: Apache-2.0
#
# Finds LibTorch and makes the target lawn::torch of it. Included by lawn's own build and by the installed lawnConfig.cmake.
# A file, not a function: a CUDA build of LibTorch enables the CUDA language, which CMake allows at file scope only.

if(TARGET lawn::torch)
  return()
endif()

get_property(LAWN_LANGUAGES GLOBAL PROPERTY ENABLED_LANGUAGES)
if(NOT CXX IN_LIST LAWN_LANGUAGES)
  message(FATAL_ERROR "lawn: expected a project with the language CXX, found ${LAWN_LANGUAGES}; enable CXX, by "
                      "project(${PROJECT_NAME} LANGUAGES C CXX) or by enable_language(CXX) before lawn")
endif()

include("${CMAKE_CURRENT_LIST_DIR}/LawnFindTorch.cmake")
lawn_find_torch()
if(NOT Torch_DIR) # an optional package's
  return()
endif()
include("${CMAKE_CURRENT_LIST_DIR}/LawnTorchVersion.cmake")
lawn_check_torch_version(Torch_VERSION)

# --- What it needs: sets LAWN_TORCH_LIBRARIES -------------------------------------------------------------------------

# Targets are made global: a consumer links lawn::lawn in other folders than the one that adds lawn.
set(LAWN_SAVED_GLOBAL "${CMAKE_FIND_PACKAGE_TARGETS_GLOBAL}")
set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL ON)

get_filename_component(LAWN_TORCH_ROOT "${Torch_DIR}/../../.." ABSOLUTE)
file(GLOB LAWN_TORCH_HAS_CUDA "${LAWN_TORCH_ROOT}/lib/libtorch_cuda.so")
include("${CMAKE_CURRENT_LIST_DIR}/LawnWantsCuda.cmake") # sets LAWN_NO_KERNELS, to why there are none

if(LAWN_TORCH_HAS_CUDA AND (LAWN_NO_KERNELS OR LAWN_INSTALLED_KERNELS))
  # LibTorch's own CMake files refuse to go on without the CUDA toolkit, even for a program that has no CUDA code of its
  # own. Such a program compiles against the headers and links against the libraries, which bring their CUDA along.
  if(LAWN_NO_KERNELS)
    message(STATUS "lawn: ${LAWN_TORCH_ROOT} is a CUDA build, but ${LAWN_NO_KERNELS}: linking its libraries directly")
  endif()
  add_library(lawn_torch_without_nvcc INTERFACE IMPORTED GLOBAL)
  target_include_directories(
    lawn_torch_without_nvcc SYSTEM INTERFACE "${LAWN_TORCH_ROOT}/include"
                                             "${LAWN_TORCH_ROOT}/include/torch/csrc/api/include")
  target_link_directories(lawn_torch_without_nvcc INTERFACE "${LAWN_TORCH_ROOT}/lib")
  target_link_options(lawn_torch_without_nvcc INTERFACE "LINKER:-rpath,${LAWN_TORCH_ROOT}/lib")
  # Nothing refers to libtorch_cuda by name (it registers itself when loaded): the linker must not drop it.
  target_link_libraries(
    lawn_torch_without_nvcc INTERFACE -Wl,--no-as-needed torch torch_cuda c10_cuda -Wl,--as-needed torch_cpu c10)
  # The wheels up to 2.6 have the older ABI of std::string.
  file(STRINGS "${Torch_DIR}/TorchConfig.cmake" LAWN_ABI REGEX "TORCH_CXX_FLAGS.*_GLIBCXX_USE_CXX11_ABI=")
  if(LAWN_ABI MATCHES "_GLIBCXX_USE_CXX11_ABI=[01]")
    target_compile_definitions(lawn_torch_without_nvcc INTERFACE "${CMAKE_MATCH_0}")
  endif()
  set(LAWN_TORCH_LIBRARIES lawn_torch_without_nvcc)
else()
  if(LAWN_TORCH_HAS_CUDA)
    # LibTorch's files and enable_language(CUDA) look for nvcc in fewer places, and could find another one.
    if(NOT CMAKE_CUDA_COMPILER)
      set(CMAKE_CUDA_COMPILER "${LAWN_CUDA_COMPILER}")
    endif()
    if(NOT CUDA_TOOLKIT_ROOT_DIR)
      get_filename_component(CUDA_TOOLKIT_ROOT_DIR "${LAWN_CUDA_COMPILER}/../.." ABSOLUTE)
    endif()
    include("${CMAKE_CURRENT_LIST_DIR}/LawnCudaArchitectures.cmake")
    set(LAWN_ARCHITECTURES_FROM "TORCH_CUDA_ARCH_LIST")
    if(NOT TORCH_CUDA_ARCH_LIST AND NOT "$ENV{TORCH_CUDA_ARCH_LIST}" STREQUAL "")
      set(TORCH_CUDA_ARCH_LIST "$ENV{TORCH_CUDA_ARCH_LIST}")
      set(LAWN_ARCHITECTURES_FROM "the environment's TORCH_CUDA_ARCH_LIST")
    elseif(NOT TORCH_CUDA_ARCH_LIST)
      # Without a GPU LibTorch would pick every architecture it ever knew, some of which today's nvcc refuses.
      lawn_cuda_architectures(TORCH_CUDA_ARCH_LIST LAWN_ARCHITECTURES_FROM "${LAWN_CUDA_COMPILER}" "${Torch_VERSION}")
    endif()
    lawn_refuse_old_architectures("${TORCH_CUDA_ARCH_LIST}" "${LAWN_ARCHITECTURES_FROM}")
  endif()
  # Messages below errors are dropped: thirty lines about CUDA, and a warning that kineto, a profiler, is not in the wheel.
  set(LAWN_SAVED_LOG_LEVEL "${CMAKE_MESSAGE_LOG_LEVEL}")
  set(CMAKE_MESSAGE_LOG_LEVEL ERROR)
  find_package(Torch REQUIRED)
  set(CMAKE_MESSAGE_LOG_LEVEL "${LAWN_SAVED_LOG_LEVEL}")
  set(LAWN_TORCH_LIBRARIES ${TORCH_LIBRARIES})
  list(FILTER LAWN_TORCH_LIBRARIES EXCLUDE REGEX "NOTFOUND") # kineto
endif()
message(STATUS "lawn: LibTorch ${Torch_VERSION} in ${LAWN_TORCH_ROOT}, from ${LAWN_TORCH_REASON}")

# --- lawn::torch ------------------------------------------------------------------------------------------------------

add_library(lawn::torch INTERFACE IMPORTED GLOBAL)
target_link_libraries(lawn::torch INTERFACE ${LAWN_TORCH_LIBRARIES})
if(Torch_VERSION VERSION_LESS 2.11)
  target_link_libraries(lawn::torch INTERFACE ${CMAKE_DL_LIBS}) # for lawn/sphere/cuda/stream_handle.h
endif()
if(Torch_VERSION VERSION_GREATER_EQUAL 2.14)
  target_compile_features(lawn::torch INTERFACE cxx_std_20)
endif()

# at::parallel_for is a template: in a translation unit compiled without OpenMP it is serial, without a word.
find_package(OpenMP QUIET COMPONENTS CXX)
file(GLOB LAWN_LIBGOMP "${LAWN_TORCH_ROOT}/lib/libgomp*.so*")
if(LAWN_LIBGOMP MATCHES ";") # a file and links to it: the one whose name LibTorch's libraries ask for
  set(LAWN_LIBGOMPS ${LAWN_LIBGOMP})
  list(FILTER LAWN_LIBGOMPS INCLUDE REGEX "\\.so\\.[0-9]+$")
  list(APPEND LAWN_LIBGOMPS ${LAWN_LIBGOMP})
  list(GET LAWN_LIBGOMPS 0 LAWN_LIBGOMP)
endif()
if(OpenMP_CXX_FOUND AND LAWN_LIBGOMP AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # The wheels bring their own runtime: linking the compiler's as well would put two into one program.
  target_compile_options(lawn::torch INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${OpenMP_CXX_FLAGS}>")
  target_link_libraries(lawn::torch INTERFACE ${LAWN_LIBGOMP})
elseif(OpenMP_CXX_FOUND)
  target_link_libraries(lawn::torch INTERFACE OpenMP::OpenMP_CXX)
  if(LAWN_LIBGOMP AND OpenMP_omp_LIBRARY)
    # What clang makes of OpenMP calls LLVM's runtime, libomp, alone; what gcc has made of LibTorch calls the wheel's libgomp, and
    # libomp answers its calls as well. So libomp serves both: programs look for the wheel's file first in a folder where its
    # name is a link to libomp, and LibTorch, loaded later, gets what is there under that name. Where the folder is gone (an
    # installed program) the wheel's libgomp is loaded too, but all calls still go to libomp, which stands before it. A program
    # that has loaded LibTorch by itself (a Python extension) keeps both.
    set(LAWN_OPENMP_FOLDER "${CMAKE_BINARY_DIR}/lawn_openmp")
    get_filename_component(LAWN_LIBGOMP_NAME "${LAWN_LIBGOMP}" NAME)
    file(REAL_PATH "${OpenMP_omp_LIBRARY}" LAWN_LIBOMP)
    file(MAKE_DIRECTORY "${LAWN_OPENMP_FOLDER}")
    file(CREATE_LINK "${LAWN_LIBOMP}" "${LAWN_OPENMP_FOLDER}/${LAWN_LIBGOMP_NAME}" SYMBOLIC)
    target_link_options(lawn::torch INTERFACE "LINKER:-rpath,${LAWN_OPENMP_FOLDER}")
    target_link_libraries(lawn::torch INTERFACE "-Wl,--push-state,--no-as-needed,\"${LAWN_LIBGOMP}\",--pop-state")
  endif()
else()
  message(STATUS "lawn: at::parallel_for is serial in programs, since the compiler has no OpenMP")
endif()
set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL "${LAWN_SAVED_GLOBAL}")

# The wheels keep CUDA's libraries in folders of their own beside torch. The linker, which looks through the libraries that
# LibTorch needs, would take an older NCCL of the toolkit on the rpath instead, and miss symbols (torch 2.15).
foreach(LAWN_FOLDER nccl cu13 cudnn nvshmem cusparselt)
  if(EXISTS "${LAWN_TORCH_ROOT}/../nvidia/${LAWN_FOLDER}/lib")
    target_link_options(lawn::torch INTERFACE
                        "LINKER:-rpath-link,${LAWN_TORCH_ROOT}/../nvidia/${LAWN_FOLDER}/lib")
  endif()
endforeach()
