# SPDX-License-Identifier: Apache-2.0
#
# lawn_check_torch_version(version) refuses a LibTorch in Torch_DIR that lawn does not support, and a compiler without the C++ that
# this LibTorch requires; sets `version`. Called before LibTorch's own CMake files are loaded. include/lawn/torch_version.h has the
# same range.

include_guard()

function(lawn_check_torch_version version)
  set(PACKAGE_VERSION "")
  include("${Torch_DIR}/TorchConfigVersion.cmake" OPTIONAL)
  set(found "${PACKAGE_VERSION}")
  set(${version} "${found}" PARENT_SCOPE)
  if(found STREQUAL "")
    return() # lawn.h looks at it, too
  endif()
  set(older 2.4.1)
  set(newer 2.16)
  if(found VERSION_LESS ${older} OR found VERSION_GREATER_EQUAL ${newer})
    message(FATAL_ERROR "lawn: expected LibTorch 2.4.1 to 2.15, found ${found} in ${Torch_DIR} (from ${LAWN_TORCH_REASON}); give one of "
                        "these: -DTorch_DIR=/path/to/libtorch/share/cmake/Torch")
  endif()
  if(found VERSION_GREATER_EQUAL 2.14)
    if(CMAKE_CXX_COMPILE_FEATURES AND NOT cxx_std_20 IN_LIST CMAKE_CXX_COMPILE_FEATURES)
      message(FATAL_ERROR "lawn: LibTorch 2.14 and later require C++20, which ${CMAKE_CXX_COMPILER} does not know; found LibTorch "
                          "${found} in ${Torch_DIR}; take a newer compiler or an older LibTorch")
    elseif(CMAKE_CXX_STANDARD AND NOT CMAKE_CXX_STANDARD STREQUAL "98" AND CMAKE_CXX_STANDARD LESS 20)
      message(WARNING "lawn: LibTorch 2.14 and later require C++20: set CMAKE_CXX_STANDARD 20; it is ${CMAKE_CXX_STANDARD}, and found is "
                      "LibTorch ${found} in ${Torch_DIR}. Targets that link lawn::lawn are compiled as C++20 in any case")
    endif()
  endif()
endfunction()
