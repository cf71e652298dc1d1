# SPDX-License-Identifier: Apache-2.0
#
# Tests of several ranks, also more of them than cores; they wait for most of the time, so that others run beside them. The files
# distributed/*_test.cpp are one program, which runs on 1, 2, 3 and 4 ranks, each of them an entry of ctest. Where there is no MPI, or
# nothing to run ranks with, they are skipped.

set(missing "")
if(NOT TARGET lawn::mpi)
  set(missing "there is no MPI")
elseif(NOT MPIEXEC_EXECUTABLE)
  set(missing "there is no mpiexec beside the MPI")
endif()
if(missing)
  foreach(ranks 1 2 3 4)
    lawn_skip_test(distributed_test_on_${ranks} "${missing}")
  endforeach()
  foreach(name distributed_lost_rank_test distributed_two_hosts_test app_cifar10_ranks_test scale_smoke)
    lawn_skip_test(${name} "${missing}")
  endforeach()
  return()
endif()

# For Open MPI, up to 4 and from 5; other MPIs do not read them: more ranks than cores, wherever they find room, also for root, in
# containers that forbid a process to read another's memory.
set(mpi_environment
    OMP_NUM_THREADS=1
    OMP_WAIT_POLICY=PASSIVE
    OMPI_ALLOW_RUN_AS_ROOT=1
    OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    OMPI_MCA_rmaps_base_oversubscribe=1
    OMPI_MCA_hwloc_base_binding_policy=none
    OMPI_MCA_btl_vader_single_copy_mechanism=none
    PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
    PRTE_MCA_hwloc_default_binding_policy=none
    ASAN_OPTIONS=detect_container_overflow=0:detect_leaks=0) # for the preset asan: MPI keeps much of its memory until the end

add_library(lawn_mpi_test_main STATIC distributed/main.cpp)
target_link_libraries(lawn_mpi_test_main PUBLIC lawn_test_main lawn::mpi)
target_precompile_headers(lawn_mpi_test_main REUSE_FROM lawn_test_main)

file(GLOB sources CONFIGURE_DEPENDS RELATIVE "${CMAKE_CURRENT_SOURCE_DIR}" distributed/*_test.cpp)
list(FILTER sources EXCLUDE REGEX "_gpu_test\.cpp$")
lawn_add_test_program(distributed_test lawn_mpi_test_main ${sources})
target_link_libraries(distributed_test PRIVATE lawn_examples_support)
# MPI cannot be initialized again: what is tested after its end is a process of its own.
set(filter_of_distributed_test -MpiFinalized.*)
set(filter_of_distributed_finalized_test MpiFinalized.*)
foreach(name distributed_test distributed_finalized_test)
  foreach(ranks 1 2 3 4)
    add_test(NAME ${name}_on_${ranks}
             COMMAND ${MPIEXEC_EXECUTABLE} ${MPIEXEC_NUMPROC_FLAG} ${ranks} ${MPIEXEC_PREFLAGS} $<TARGET_FILE:distributed_test>
                     ${MPIEXEC_POSTFLAGS} --gtest_filter=${filter_of_${name}})
    set_tests_properties(${name}_on_${ranks} PROPERTIES ENVIRONMENT "${mpi_environment}")
  endforeach()
endforeach()

# A rank that dies or hangs: what mpirun then does is Open MPI's, so this is tested with Open MPI alone.
execute_process(COMMAND ${MPIEXEC_EXECUTABLE} --version OUTPUT_VARIABLE mpi_version ERROR_QUIET)
if(mpi_version MATCHES "Open MPI|OpenRTE|PRTE")
  add_executable(distributed_lost_rank distributed/lost_rank.cpp)
  target_link_libraries(distributed_lost_rank PRIVATE lawn_test_main lawn::mpi)
  target_precompile_headers(distributed_lost_rank REUSE_FROM lawn_test_main)
  add_test(NAME distributed_lost_rank_test
           COMMAND "${Python3_EXECUTABLE}" -B "${CMAKE_CURRENT_SOURCE_DIR}/distributed/lost_rank_test.py"
                   $<TARGET_FILE:distributed_lost_rank> ${MPIEXEC_EXECUTABLE})
  add_test(NAME distributed_two_hosts_test
           COMMAND "${Python3_EXECUTABLE}" -B "${CMAKE_CURRENT_SOURCE_DIR}/distributed/two_hosts_test.py"
                   $<TARGET_FILE:distributed_lost_rank> ${MPIEXEC_EXECUTABLE})
  set_tests_properties(distributed_lost_rank_test distributed_two_hosts_test
                       PROPERTIES SKIP_RETURN_CODE 77 ENVIRONMENT "${mpi_environment}")
  if(LAWN_BUILD_EXAMPLES)
    add_test(NAME app_cifar10_ranks_test
             COMMAND "${Python3_EXECUTABLE}" -B "${CMAKE_CURRENT_SOURCE_DIR}/examples/ranks_test.py" $<TARGET_FILE:cifar10>
                     ${MPIEXEC_EXECUTABLE})
    set_tests_properties(app_cifar10_ranks_test PROPERTIES ENVIRONMENT "${mpi_environment}")
  endif()
else()
  foreach(name distributed_lost_rank_test distributed_two_hosts_test app_cifar10_ranks_test)
    lawn_skip_test(${name} "it knows what Open MPI does with a lost rank, and this is another MPI")
  endforeach()
endif()

if(LAWN_BUILD_BENCHMARKS) # that it runs at all; its figures mean nothing here
  add_test(NAME scale_smoke COMMAND ${MPIEXEC_EXECUTABLE} ${MPIEXEC_NUMPROC_FLAG} 2 ${MPIEXEC_PREFLAGS} $<TARGET_FILE:scale>
                                    ${MPIEXEC_POSTFLAGS} --repeats 1)
  set_tests_properties(scale_smoke PROPERTIES PROCESSORS 2 ENVIRONMENT "${mpi_environment}")
endif()
