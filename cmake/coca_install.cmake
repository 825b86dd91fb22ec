# Where `cmake --install` puts files. Components: runtime (program, manual, completions) and dev (library, headers,
# example). The prefix may be chosen while installing, so nothing here depends on CMAKE_INSTALL_PREFIX.
include(CMakePackageConfigHelpers)
set(coca_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/coca)

install(TARGETS coca_program RUNTIME COMPONENT runtime)
install(TARGETS coca_library EXPORT coca ARCHIVE COMPONENT dev)
install(EXPORT coca NAMESPACE coca:: FILE coca-targets.cmake DESTINATION ${coca_package_dir} COMPONENT dev)
# The headers of the library's modules, except those that only its kernels include.
install(DIRECTORY src/coca DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT dev FILES_MATCHING PATTERN "*.h"
  PATTERN bench EXCLUDE REGEX "kernels/(cpu|cuda|cuda_stub|onednn|ref)$" EXCLUDE)
install(DIRECTORY ${COCA_GENERATED_DIR}/coca DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT dev)
install(FILES src/coca/kernels/cuda/device.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/coca/kernels/cuda COMPONENT dev)

configure_package_config_file(cmake/coca-config.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/coca-config.cmake
  INSTALL_DESTINATION ${coca_package_dir} NO_SET_AND_CHECK_MACRO NO_CHECK_REQUIRED_COMPONENTS_MACRO)
# Until 1.0.0 the interfaces may change in any minor version (CHANGELOG.md).
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/coca-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/coca-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/coca-config-version.cmake
  DESTINATION ${coca_package_dir} COMPONENT dev)

# There is only a static library, so everyone who links libcoca.a needs its dependencies: Requires and Libs, not
# *.private.
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

# The program generates the manual page and the completions.
set(coca_texts ${CMAKE_CURRENT_BINARY_DIR}/texts)
set(coca_text_files)
foreach(text "coca.1=man" "coca=completion bash" "_coca=completion zsh" "coca.fish=completion fish")
  string(REGEX REPLACE "=.*" "" file ${text})
  string(REGEX REPLACE ".*=" "" command ${text})
  separate_arguments(command)
  add_custom_command(OUTPUT ${coca_texts}/${file} DEPENDS coca_program VERBATIM
    COMMAND ${CMAKE_COMMAND} -E make_directory ${coca_texts}
    COMMAND coca_program ${command} > ${coca_texts}/${file})
  list(APPEND coca_text_files ${coca_texts}/${file})
endforeach()
add_custom_target(coca_texts ALL DEPENDS ${coca_text_files})
# Debian expects some files under other names or compressed, so these files are installed separately when packaging.
install(FILES ${coca_texts}/coca.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 COMPONENT local)
install(FILES ${coca_texts}/coca DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions COMPONENT runtime)
install(FILES ${coca_texts}/coca.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d COMPONENT runtime)
install(FILES ${coca_texts}/_coca DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions COMPONENT local)
install(FILES README.md DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT runtime)
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT runtime)
install(FILES LICENSE CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT local)
install(DIRECTORY examples/outside DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/libcoca-dev/examples COMPONENT dev)

find_program(COCA_GZIP gzip)
if(COCA_GZIP)
  set(coca_packed_files)
  foreach(file ${coca_texts}/coca.1 ${CMAKE_CURRENT_SOURCE_DIR}/CHANGELOG.md)
    string(REGEX REPLACE ".*/" "" name ${file})
    add_custom_command(OUTPUT ${coca_texts}/${name}.gz DEPENDS ${file} ${coca_text_files} VERBATIM
      COMMAND ${COCA_GZIP} -9nc ${file} > ${coca_texts}/${name}.gz)
    list(APPEND coca_packed_files ${coca_texts}/${name}.gz)
  endforeach()
  add_custom_target(coca_packed_texts ALL DEPENDS ${coca_packed_files})
  add_dependencies(coca_texts coca_packed_texts)
  install(FILES ${coca_texts}/coca.1.gz DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 COMPONENT runtime EXCLUDE_FROM_ALL)
  install(FILES ${coca_texts}/CHANGELOG.md.gz DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME changelog.gz
    COMPONENT runtime EXCLUDE_FROM_ALL)
endif()
install(FILES ${coca_texts}/_coca DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions COMPONENT runtime
  EXCLUDE_FROM_ALL)
install(FILES cmake/copyright DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/coca COMPONENT runtime EXCLUDE_FROM_ALL)
install(FILES cmake/copyright DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/libcoca-dev COMPONENT dev EXCLUDE_FROM_ALL)

# The packages coca and libcoca-dev, made by scripts/package.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME coca)
set(CPACK_PACKAGE_CONTACT "coca maintainers <maintainers@coca.invalid>")  # scripts/package uses DEBFULLNAME and DEBEMAIL
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ
  WORLD_EXECUTE)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL runtime dev)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_RELEASE 1)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_NAME coca)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SECTION science)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_RECOMMENDS "gnuplot-nox | gnuplot")
set(CPACK_DEBIAN_RUNTIME_DESCRIPTION
  "The program coca trains, fine-tunes, converts and evaluates rotary language
models with CoCA or other position methods, and generates text with them.")
set(CPACK_DEBIAN_DEV_PACKAGE_NAME libcoca-dev)
set(CPACK_DEBIAN_DEV_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEV_PACKAGE_DEPENDS "libfmt-dev, nlohmann-json3-dev, libdnnl-dev, libhwy-dev, libsentencepiece-dev, libpcre2-dev, libutf8proc-dev, pkg-config")
if(COCA_WITH_MPI)
  set(CPACK_DEBIAN_RUNTIME_PACKAGE_SUGGESTS openmpi-bin)
  string(APPEND CPACK_DEBIAN_DEV_PACKAGE_DEPENDS ", libopenmpi-dev")
endif()
set(CPACK_DEBIAN_DEV_DESCRIPTION
  "The static library with its headers, a CMake package, a pkg-config file and
an example.")
include(CPack)
