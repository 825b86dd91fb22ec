# Build options, and the compile flags of all targets (interface target coca_flags).
option(COCA_DEV "Build tests, benchmarks and examples; warnings are errors" ${PROJECT_IS_TOP_LEVEL})
option(COCA_SCALAR "Compile the Highway kernels for the scalar target only" OFF)
option(COCA_CUDA "Build the kernels for NVIDIA GPUs; needs the CUDA toolkit" OFF)
set(COCA_CUDNN AUTO CACHE STRING "Attention by cuDNN: ON, OFF, or AUTO (with COCA_CUDA, where the headers of cuDNN and cudnn-frontend are found)")
set(COCA_MPI AUTO CACHE STRING "Runs of several processes over MPI: ON, OFF, or AUTO (where MPI is found, without sanitizers)")
option(COCA_NCCL "Build the ranks over NCCL, for the CUDA backend to come; needs the CUDA toolkit and NCCL" OFF)
option(COCA_FUZZ "Build the fuzz targets instead of the program; needs clang (fuzz/README.md)" OFF)
set(COCA_SANITIZE "" CACHE STRING "Sanitizers, for example address;undefined or thread")

option(COCA_COVERAGE "Count which lines of the library and the program run (scripts/coverage)" OFF)
set(COCA_TEST_RUNNER "" CACHE STRING "A command that runs each test's program, for example valgrind and its options")
set(COCA_TEST_LEFT_OUT "" CACHE FILEPATH "A file that names the tests that ctest does not run: \"folder: Suite Suite\" a line")
if(COCA_TEST_LEFT_OUT)
  file(STRINGS "${COCA_TEST_LEFT_OUT}" lines REGEX "^[a-z]+: ")
  foreach(line ${lines})
    string(REGEX MATCHALL "[^: ]+" suites "${line}")
    list(POP_FRONT suites folder)
    list(APPEND coca_left_out_${folder} ${suites})
  endforeach()
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${COCA_TEST_LEFT_OUT}")
endif()

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

# -O2 and never -ffast-math: NaN checks must work, and results must not depend on the optimizer.
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g")

add_library(coca_flags INTERFACE)
target_compile_options(coca_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wshadow;-Wno-missing-field-initializers;-ffp-contract=off>
  $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra,-Wshadow,-Wno-missing-field-initializers;--expt-relaxed-constexpr;-diag-suppress=554;-DFMT_USE_CONSTEXPR=1;-DFMT_CONSTEVAL=>)  # as fmt 9 for nvcc leaves out half of it; 554: a conversion that a requires clause rules out
if(COCA_DEV)
  target_compile_options(coca_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>
    $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings>)
endif()
if(COCA_SCALAR)
  target_compile_definitions(coca_flags INTERFACE HWY_COMPILE_ONLY_SCALAR)
endif()
if(COCA_SANITIZE)
  string(REPLACE ";" "," _sanitize "${COCA_SANITIZE}")
  # g++ warns falsely about maybe-uninitialized values in sanitized code. -O1 -g1 builds faster, and reports still name
  # lines.
  target_compile_options(coca_flags INTERFACE -fsanitize=${_sanitize} -fno-omit-frame-pointer
    -fno-sanitize-recover=all -Wno-maybe-uninitialized -O1 -g1)
  target_link_options(coca_flags INTERFACE -fsanitize=${_sanitize})
endif()
# Lines of tests are not counted, and tests compile as they do for users. Threads share the counters, so these are
# atomic.
add_library(coca_counted INTERFACE)
if(COCA_COVERAGE)
  target_compile_options(coca_counted INTERFACE --coverage -fprofile-update=atomic -O1)
  target_link_options(coca_counted INTERFACE --coverage)
endif()
