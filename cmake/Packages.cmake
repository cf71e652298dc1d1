# SPDX-License-Identifier: Apache-2.0
#
# `cpack -G TGZ` and `cpack -G DEB` in the build folder make archives of what `cmake --install` installs.

set(CPACK_PACKAGE_NAME lawn)
set(CPACK_PACKAGE_VENDOR "lawn")
set(CPACK_PACKAGE_CONTACT "the authors of lawn")
set(CPACK_RESOURCE_FILE_LICENSE "${PROJECT_SOURCE_DIR}/LICENSE")
set(CPACK_GENERATOR TGZ)
set(CPACK_DEBIAN_PACKAGE_NAME liblawn-dev)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "libtorch-dev (>= 2.4.1)") # or LibTorch from elsewhere
if(NOT (LAWN_INSTALL_KERNELS AND TARGET lawn_cuda)) # headers alone
  set(CPACK_DEBIAN_PACKAGE_ARCHITECTURE all)
  set(CPACK_SYSTEM_NAME any)
endif()
set(CMAKE_SKIP_INSTALL_ALL_DEPENDENCY ON) # what is not installed need not be built
include(CPack)
