# SPDX-License-Identifier: Apache-2.0
#
# Installs the headers and a package that find_package(lawn) finds.

include(GNUInstallDirs)

set(package_folder "${CMAKE_INSTALL_DATADIR}/cmake/lawn")

install(TARGETS lawn EXPORT lawnTargets
        FILE_SET HEADERS DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
        FILE_SET mpi DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
        FILE_SET kernels DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(EXPORT lawnTargets NAMESPACE lawn:: DESTINATION "${package_folder}")

configure_file(cmake/lawnConfigVersion.cmake.in "${PROJECT_BINARY_DIR}/lawnConfigVersion.cmake" @ONLY)
install(FILES cmake/lawnConfig.cmake cmake/LawnTorch.cmake cmake/LawnFindTorch.cmake cmake/LawnTorchVersion.cmake
              cmake/LawnWantsCuda.cmake cmake/LawnCuda.cmake
              cmake/LawnCudaArchitectures.cmake cmake/LawnMpi.cmake
              "${PROJECT_BINARY_DIR}/lawnConfigVersion.cmake" DESTINATION "${package_folder}")
install(FILES LICENSE DESTINATION "${CMAKE_INSTALL_DATADIR}/doc/lawn")
