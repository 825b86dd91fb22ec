# What `cmake --install` puts where. Components: runtime (program, manual, completions) and dev (library, headers, example).
# The prefix may be chosen while installing, so nothing here depends on CMAKE_INSTALL_PREFIX.
include(CMakePackageConfigHelpers)
set(coca_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/coca)

install(TARGETS coca_program RUNTIME COMPONENT runtime)
install(TARGETS coca_library EXPORT coca ARCHIVE COMPONENT dev)
install(EXPORT coca NAMESPACE coca:: FILE coca-targets.cmake DESTINATION ${coca_package_dir} COMPONENT dev)
# The headers of the modules in the library, without those that only its kernels include.
install(DIRECTORY src/coca DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT dev FILES_MATCHING PATTERN "*.h"
  PATTERN bench EXCLUDE PATTERN kernels/cuda/check.h EXCLUDE REGEX "kernels/(cpu|cuda_stub|onednn|ref)$" EXCLUDE)

configure_package_config_file(cmake/coca-config.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/coca-config.cmake
  INSTALL_DESTINATION ${coca_package_dir} NO_SET_AND_CHECK_MACRO NO_CHECK_REQUIRED_COMPONENTS_MACRO)
# Until 1.0.0 the interfaces may change in any minor version (CHANGELOG.md).
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/coca-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/coca-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/coca-config-version.cmake
  DESTINATION ${coca_package_dir} COMPONENT dev)

# There is no shared library, so what libcoca.a needs is needed by everyone who links it: Requires and Libs, not *.private.
set(COCA_PC_LIBS -ldnnl ${OpenMP_CXX_FLAGS} -pthread)
if(COCA_WITH_MPI)
  list(APPEND COCA_PC_LIBS ${MPI_CXX_LINK_FLAGS} ${MPI_CXX_LIBRARIES})
endif()
if(COCA_CUDA OR COCA_NCCL)
  list(APPEND COCA_PC_LIBS ${NCCL_LIBRARY} -L${CUDAToolkit_LIBRARY_DIR} -lcudart_static -ldl -lrt)
endif()
list(JOIN COCA_PC_LIBS " " COCA_PC_LIBS)
file(RELATIVE_PATH COCA_PC_UP /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
string(REGEX REPLACE "/$" "" COCA_PC_UP ${COCA_PC_UP})
configure_file(cmake/coca.pc.in ${CMAKE_CURRENT_BINARY_DIR}/coca.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/coca.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT dev)

install(FILES README.md CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT runtime)
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT runtime)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME copyright COMPONENT runtime)  # Debian's name for it
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/libcoca-dev RENAME copyright COMPONENT dev)
install(DIRECTORY examples/outside DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/libcoca-dev/examples COMPONENT dev)
