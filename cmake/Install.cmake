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
option(LAWN_INSTALL_KERNELS "Install the CUDA kernels compiled, so that projects which use them need no nvcc" OFF)
if(LAWN_INSTALL_KERNELS AND TARGET lawn_cuda)
  set(object "kernels-cuda${CUDAToolkit_VERSION_MAJOR}${CMAKE_CXX_OUTPUT_EXTENSION}")
  install(FILES "$<TARGET_OBJECTS:lawn_cuda>" DESTINATION "${CMAKE_INSTALL_LIBDIR}/lawn" RENAME "${object}")
  file(RELATIVE_PATH object "/${package_folder}" "/${CMAKE_INSTALL_LIBDIR}/lawn/${object}")
  file(CONFIGURE OUTPUT "${PROJECT_BINARY_DIR}/lawnKernels.cmake" CONTENT [[
# SPDX-License-Identifier: Apache-2.0
set(LAWN_COMPILED_KERNELS "${CMAKE_CURRENT_LIST_DIR}/@object@")
set(LAWN_COMPILED_FOR "@TORCH_CUDA_ARCH_LIST@")
set(LAWN_COMPILED_WITH_CUDA @CUDAToolkit_VERSION_MAJOR@)
]] @ONLY)
else() # in place of one that an earlier lawn has left there
  file(WRITE "${PROJECT_BINARY_DIR}/lawnKernels.cmake" "# SPDX-License-Identifier: Apache-2.0\n")
endif()
install(FILES "${PROJECT_BINARY_DIR}/lawnKernels.cmake" DESTINATION "${package_folder}")
if(LAWN_INSTALL_KERNELS AND NOT TARGET lawn_cuda)
  message(STATUS "lawn: there are no CUDA kernels to install, since ${LAWN_NO_KERNELS} (LAWN_INSTALL_KERNELS=ON)")
endif()
# For builds without CMake; LibTorch has no such file, and its flags are the project's to give. Its prefix is where the file lies.
file(RELATIVE_PATH prefix "/${CMAKE_INSTALL_DATADIR}/pkgconfig" "/")
configure_file(cmake/lawn.pc.in "${PROJECT_BINARY_DIR}/lawn.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/lawn.pc" DESTINATION "${CMAKE_INSTALL_DATADIR}/pkgconfig")
install(FILES LICENSE DESTINATION "${CMAKE_INSTALL_DATADIR}/doc/lawn")
