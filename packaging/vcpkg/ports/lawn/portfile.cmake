# SPDX-License-Identifier: Apache-2.0
#
# An overlay port of this checkout: `vcpkg install lawn --overlay-ports=packaging/vcpkg/ports`. LibTorch is vcpkg's.
get_filename_component(SOURCE_PATH "${CMAKE_CURRENT_LIST_DIR}/../../../.." ABSOLUTE)
set(VCPKG_BUILD_TYPE release) # headers alone

vcpkg_cmake_configure(
  SOURCE_PATH "${SOURCE_PATH}"
  OPTIONS -DLAWN_BUILD_TESTS=OFF -DLAWN_BUILD_EXAMPLES=OFF -DLAWN_INSTALL_LIBTORCH=OFF -DLAWN_CUDA=OFF)
vcpkg_cmake_install()
vcpkg_cmake_config_fixup(PACKAGE_NAME lawn CONFIG_PATH share/cmake/lawn)
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE")
file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/share/doc")
