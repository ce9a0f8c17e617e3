# SPDX-License-Identifier: Apache-2.0
# Every dependency: the installed one, else a pinned release from the network.
include(FetchContent)
list(APPEND CMAKE_MODULE_PATH ${CMAKE_CURRENT_LIST_DIR})

# Downloads and unpacks a release whose headers are all that is needed; its own CMake files are not run.
# Sets ${name}_SOURCE_DIR in the caller.
macro(ple_fetch_headers name debian url sha256)
  message(STATUS "${name} is not installed (Debian: ${debian}): fetching ${url}")
  FetchContent_Declare(${name} URL ${url} URL_HASH SHA256=${sha256} DOWNLOAD_EXTRACT_TIMESTAMP ON SOURCE_SUBDIR headers-only)
  FetchContent_MakeAvailable(${name})
endmacro()

# The same, as a target under the name that its package would give it.
macro(ple_fetch_header_library name target folder debian url sha256)
  ple_fetch_headers(${name} ${debian} ${url} ${sha256})
  string(TOLOWER ${name} lower)
  add_library(${target} INTERFACE IMPORTED GLOBAL)
  set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES ${${lower}_SOURCE_DIR}${folder})
endmacro()

# The library itself.
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED GLOBAL)
find_package(HwyHeaders 1.0.3 QUIET)
if(NOT HwyHeaders_FOUND)
  ple_fetch_headers(highway libhwy-dev https://github.com/google/highway/archive/refs/tags/1.2.0.tar.gz
    7e0be78b8318e8bdbf6fa545d2ecb4c90f947df03f7aadc42c1967f019e63343)
  set(HwyHeaders_INCLUDE_DIR ${highway_SOURCE_DIR} CACHE PATH "Folder of hwy/highway.h" FORCE)
  find_package(HwyHeaders 1.0.3 REQUIRED)
endif()
message(STATUS "Highway ${HwyHeaders_VERSION} (headers): ${HwyHeaders_INCLUDE_DIR}")

if(PLE_BUILD_EXAMPLES OR PLE_BUILD_BENCH)
  find_package(fmt 9 QUIET)
  if(NOT fmt_FOUND AND NOT TARGET fmt::fmt)
    message(STATUS "fmt is not installed (Debian: libfmt-dev): fetching it")
    FetchContent_Declare(fmt URL https://github.com/fmtlib/fmt/archive/refs/tags/9.1.0.tar.gz
      URL_HASH SHA256=5dea48d1fcddc3ec571ce2058e13910a0d4a6bab4cc09a809d8b1dd1c88ae6f2 DOWNLOAD_EXTRACT_TIMESTAMP ON)
    FetchContent_MakeAvailable(fmt)
  endif()
endif()

if(PLE_BUILD_TESTS)
  find_package(doctest 2.4 QUIET)
  if(NOT doctest_FOUND)
    ple_fetch_header_library(doctest doctest::doctest "" doctest-dev
      https://github.com/doctest/doctest/archive/refs/tags/v2.4.9.tar.gz
      19b2df757f2f3703a5e63cee553d85596875f06d91a3333acd80a969ef210856)
  endif()
  find_package(nlohmann_json 3.11 QUIET)
  if(NOT nlohmann_json_FOUND)
    ple_fetch_header_library(nlohmann_json nlohmann_json::nlohmann_json /include nlohmann-json3-dev
      https://github.com/nlohmann/json/archive/refs/tags/v3.11.2.tar.gz
      d69f9deb6a75e2580465c6c4c5111b89c4dc2fa94e3a85fcd2ffcd9a143d9273)
  endif()
endif()

# Only the opt-in headers ple/tensor/eigen.h and ple/table/spectrum.h need it, programs that use these, and the tests.
find_package(Eigen3 3.4 QUIET NO_MODULE)
if((PLE_BUILD_TESTS OR PLE_BUILD_EXAMPLES) AND NOT Eigen3_FOUND)
  ple_fetch_header_library(Eigen3 Eigen3::Eigen "" libeigen3-dev
    https://gitlab.com/libeigen/eigen/-/archive/3.4.0/eigen-3.4.0.tar.bz2
    b4c198460eba6f28d34894e3a5710998818515104d6e74e5cc331ce31e46e626)
endif()
