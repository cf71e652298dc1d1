# SPDX-License-Identifier: Apache-2.0
#
# Makes the target lawn::mpi of lawn::lawn and an MPI-3, for lawn/distributed/mpi.h; none where there is no MPI. Included by lawn's
# own build, and by the installed lawnConfig.cmake for find_package(lawn COMPONENTS mpi). Sets lawn_mpi_FOUND.

if(NOT TARGET lawn::mpi)
  set(LAWN_SAVED_GLOBAL "${CMAKE_FIND_PACKAGE_TARGETS_GLOBAL}")
  set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL ON)
  set(MPI_CXX_SKIP_MPICXX ON) # the C interface serves; some MPIs warn of their old one for C++
  find_package(MPI 3.0 QUIET COMPONENTS CXX)
  set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL "${LAWN_SAVED_GLOBAL}")
  if(MPI_CXX_FOUND)
    message(STATUS "lawn: MPI ${MPI_CXX_VERSION}, run by ${MPIEXEC_EXECUTABLE}")
    add_library(lawn::mpi INTERFACE IMPORTED GLOBAL)
    target_link_libraries(lawn::mpi INTERFACE lawn::lawn MPI::MPI_CXX)
  else()
    message(STATUS "lawn: no target lawn::mpi, since no MPI was found")
  endif()
endif()

set(lawn_mpi_FOUND FALSE)
if(TARGET lawn::mpi)
  set(lawn_mpi_FOUND TRUE)
endif()
