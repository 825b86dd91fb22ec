# coca_module(NAME x SOURCES a.cc b.cc DEPS y z PRIVATE_DEPS fmt::fmt)
#   a static library coca_x (alias coca::x). DEPS names other modules: this list is the link graph, and the
#   layering test holds the includes against cmake/layers.txt.
function(coca_module)
  cmake_parse_arguments(ARG "" "NAME" "SOURCES;DEPS;PUBLIC_DEPS;PRIVATE_DEPS" ${ARGN})
  set(target coca_${ARG_NAME})
  add_library(${target} STATIC ${ARG_SOURCES})
  add_library(coca::${ARG_NAME} ALIAS ${target})
  target_include_directories(${target} PUBLIC ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(${target} PRIVATE coca_flags coca_counted ${ARG_PRIVATE_DEPS} PUBLIC ${ARG_PUBLIC_DEPS})
  foreach(dep ${ARG_DEPS})
    target_link_libraries(${target} PUBLIC coca_${dep})
  endforeach()
endfunction()

# coca_test(NAME x_test SOURCES x_test.cc DEPS modules LABELS fast): a GoogleTest binary, one ctest entry.
function(coca_test)
  cmake_parse_arguments(ARG "" "NAME" "SOURCES;DEPS;LABELS;PRIVATE_DEPS" ${ARGN})
  if(NOT ARG_LABELS)
    set(ARG_LABELS fast)
  endif()
  add_executable(${ARG_NAME} ${ARG_SOURCES})
  target_link_libraries(${ARG_NAME} PRIVATE coca_flags ${ARG_PRIVATE_DEPS} GTest::gmock GTest::gtest_main)
  target_include_directories(${ARG_NAME} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  foreach(dep ${ARG_DEPS})
    target_link_libraries(${ARG_NAME} PRIVATE coca_${dep})
  endforeach()
  target_compile_definitions(${ARG_NAME} PRIVATE COCA_SOURCE_DIR="${PROJECT_SOURCE_DIR}"
    COCA_PROGRAM="$<$<TARGET_EXISTS:coca_program>:$<TARGET_FILE:coca_program>>")
  add_test(NAME ${ARG_NAME} COMMAND ${COCA_TEST_RUNNER} $<TARGET_FILE:${ARG_NAME}> WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  # Tests share the machine with other builds and tests: waiting threads should give way (tools/coca.cc says why).
  set_tests_properties(${ARG_NAME} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT 900 ENVIRONMENT GOMP_SPINCOUNT=2000)
endfunction()

# coca_bench(NAME op_x SOURCES op_x.cc DEPS modules): a Google Benchmark binary.
function(coca_bench)
  cmake_parse_arguments(ARG "" "NAME" "SOURCES;DEPS" ${ARGN})
  add_executable(${ARG_NAME} ${ARG_SOURCES})
  target_link_libraries(${ARG_NAME} PRIVATE coca_flags benchmark::benchmark benchmark::benchmark_main)
  foreach(dep ${ARG_DEPS})
    target_link_libraries(${ARG_NAME} PRIVATE coca_${dep})
  endforeach()
endfunction()
