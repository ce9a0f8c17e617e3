# SPDX-License-Identifier: Apache-2.0
# Highway by its headers alone: its own CMake package would make every user link the shared library, which ple never needs.
# Defines ple::hwy_headers.
find_path(HwyHeaders_INCLUDE_DIR hwy/highway.h)
mark_as_advanced(HwyHeaders_INCLUDE_DIR)

if(HwyHeaders_INCLUDE_DIR)
  file(STRINGS ${HwyHeaders_INCLUDE_DIR}/hwy/base.h HwyHeaders_VERSION REGEX "^#define HWY_(MAJOR|MINOR|PATCH) ")
  if(NOT HwyHeaders_VERSION)  # where older releases had it
    file(STRINGS ${HwyHeaders_INCLUDE_DIR}/hwy/highway.h HwyHeaders_VERSION REGEX "^#define HWY_(MAJOR|MINOR|PATCH) ")
  endif()
  list(TRANSFORM HwyHeaders_VERSION REPLACE "^#define HWY_[A-Z]+ +" "")
  list(JOIN HwyHeaders_VERSION "." HwyHeaders_VERSION)
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(HwyHeaders
  REQUIRED_VARS HwyHeaders_INCLUDE_DIR
  VERSION_VAR HwyHeaders_VERSION
  REASON_FAILURE_MESSAGE "ple needs the headers of Highway: apt-get install libhwy-dev, brew install highway, or set HwyHeaders_INCLUDE_DIR")

if(HwyHeaders_FOUND AND NOT TARGET ple::hwy_headers)
  # Global: a project that adds ple as a folder links ple::ple from outside of it.
  add_library(ple::hwy_headers INTERFACE IMPORTED GLOBAL)
  set_target_properties(ple::hwy_headers PROPERTIES INTERFACE_INCLUDE_DIRECTORIES ${HwyHeaders_INCLUDE_DIR})
endif()
