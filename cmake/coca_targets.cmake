# coca_module(NAME x SOURCES a.cc b.cc DEPS y z PRIVATE_DEPS fmt::fmt)
#   Defines a static library coca_x (alias coca::x). DEPS names other modules. It is the link graph; the layering test
#   checks the includes against cmake/layers.txt. PROGRAM_ONLY: not part of the library coca::coca.
function(coca_module)
  cmake_parse_arguments(ARG "PROGRAM_ONLY" "NAME" "SOURCES;DEPS;PUBLIC_DEPS;PRIVATE_DEPS" ${ARGN})
  set(target coca_${ARG_NAME})
  add_library(${target} STATIC ${ARG_SOURCES})
  add_library(coca::${ARG_NAME} ALIAS ${target})
  target_include_directories(${target} PUBLIC ${PROJECT_SOURCE_DIR}/src ${COCA_GENERATED_DIR})
  target_link_libraries(${target} PRIVATE coca_flags coca_counted ${ARG_PRIVATE_DEPS} PUBLIC ${ARG_PUBLIC_DEPS})
  foreach(dep ${ARG_DEPS})
    target_link_libraries(${target} PUBLIC coca_${dep})
  endforeach()
  if(NOT ARG_PROGRAM_ONLY)
    set_property(GLOBAL APPEND PROPERTY COCA_LIBRARY_OBJECTS $<TARGET_OBJECTS:${target}>)
    set_property(GLOBAL APPEND PROPERTY COCA_LIBRARY_DEPS ${ARG_PUBLIC_DEPS} ${ARG_PRIVATE_DEPS})
  endif()
endfunction()

# coca_tests(DEPS modules LABEL fast SLOW Suite)
#   Builds the tests of this folder into one GoogleTest program, FOLDER_test. ctest asks it for their names
#   (FOLDER.Suite.Test) when it starts, and runs each one separately. SLOW: suites that have this label instead.
#   Several files are compiled as one (unless -DCMAKE_UNITY_BUILD=OFF) and without optimisation, since nearly all of
#   the time would be spent on reading and optimising headers such as GoogleTest's. NUMERICS: compiles with -O1, for
#   folders whose tests compute a lot themselves (in base: regular expressions).
function(coca_tests)
  cmake_parse_arguments(ARG "NUMERICS" "LABEL" "SOURCES;DEPS;PRIVATE_DEPS;SLOW" ${ARGN})
  get_filename_component(folder ${CMAKE_CURRENT_SOURCE_DIR} NAME)
  set(target ${folder}_test)
  if(NOT ARG_LABEL)
    set(ARG_LABEL fast)
  endif()
  set(optimise -O0)
  if(ARG_NUMERICS)
    set(optimise -O1)
  endif()
  if(NOT ARG_SOURCES)
    file(GLOB ARG_SOURCES CONFIGURE_DEPENDS *_test.cc)
  endif()
  add_executable(${target} ${ARG_SOURCES})
  target_link_libraries(${target} PRIVATE coca_flags ${ARG_PRIVATE_DEPS} coca_test_main)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  foreach(dep ${ARG_DEPS})
    target_link_libraries(${target} PRIVATE coca_${dep})
  endforeach()
  target_compile_definitions(${target} PRIVATE COCA_SOURCE_DIR="${PROJECT_SOURCE_DIR}"
    COCA_PROGRAM="$<$<TARGET_EXISTS:coca_program>:$<TARGET_FILE:coca_program>>")
  set_target_properties(${target} PROPERTIES CROSSCOMPILING_EMULATOR "${COCA_TEST_RUNNER}")
  target_compile_options(${target} PRIVATE ${optimise})
  if(NOT DEFINED CMAKE_UNITY_BUILD)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 8)
  endif()
  coca_test_filter(left_out ${coca_left_out_${folder}})
  coca_test_filter(slow ${ARG_SLOW})
  coca_discover_tests(${target} ${ARG_LABEL} "*-${slow}:${left_out}")
  if(ARG_SLOW)
    coca_discover_tests(${target} slow "${slow}-${left_out}")
  endif()
endfunction()

# Turns suites into a GoogleTest filter. Parameterised tests are named Instance/Suite.Test/parameter.
function(coca_test_filter variable)
  list(TRANSFORM ARGN REPLACE "(.+)" "\\1.*:*/\\1.*" OUTPUT_VARIABLE patterns)
  list(JOIN patterns ":" filter)
  set(${variable} "${filter}" PARENT_SCOPE)
endfunction()

function(coca_discover_tests target label filter)
  set(seconds 900)
  if(COCA_SANITIZE OR COCA_TEST_RUNNER)
    set(seconds 3600)
  endif()
  string(REPLACE "_test" "." prefix ${target})
  # Waiting threads should yield, since tests share the machine with other builds and tests (tools/coca.cc explains).
  gtest_discover_tests(${target} TEST_PREFIX ${prefix} TEST_FILTER "${filter}" WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
    DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 120
    PROPERTIES LABELS ${label} TIMEOUT ${seconds} ENVIRONMENT GOMP_SPINCOUNT=2000)
endfunction()

# coca_bench(NAME op_x SOURCES op_x.cc DEPS modules): defines a Google Benchmark program.
function(coca_bench)
  cmake_parse_arguments(ARG "" "NAME" "SOURCES;DEPS" ${ARGN})
  add_executable(${ARG_NAME} ${ARG_SOURCES})
  target_link_libraries(${ARG_NAME} PRIVATE coca_flags benchmark::benchmark benchmark::benchmark_main)
  foreach(dep ${ARG_DEPS})
    target_link_libraries(${ARG_NAME} PRIVATE coca_${dep})
  endforeach()
endfunction()
