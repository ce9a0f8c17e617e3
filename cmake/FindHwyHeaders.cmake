# SPDX-License-Identifier: Apache-2.0
# Highway as headers only: no program that uses ple links libhwy.
find_path(HwyHeaders_INCLUDE_DIR hwy/highway.h)
mark_as_advanced(HwyHeaders_INCLUDE_DIR)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(HwyHeaders REQUIRED_VARS HwyHeaders_INCLUDE_DIR)
if(HwyHeaders_FOUND AND NOT TARGET ple::hwy_headers)
  add_library(ple::hwy_headers INTERFACE IMPORTED)
  set_target_properties(ple::hwy_headers PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${HwyHeaders_INCLUDE_DIR}")
endif()
