# SPDX-License-Identifier: Apache-2.0
# The headers, find_package(ple) and pkg-config. Nothing here depends on the machine, so everything goes to share/.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_DATADIR}/cmake/ple)

install(TARGETS ple EXPORT ple_targets FILE_SET HEADERS FILE_SET eigen_headers)
install(EXPORT ple_targets NAMESPACE ple:: FILE ple-targets.cmake DESTINATION ${package_dir})
configure_package_config_file(cmake/ple-config.cmake.in ple-config.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(ple-config-version.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES
  ${PROJECT_BINARY_DIR}/ple-config.cmake ${PROJECT_BINARY_DIR}/ple-config-version.cmake cmake/FindHwyHeaders.cmake
  DESTINATION ${package_dir})

# pkg-config: Highway's own module would link its library, so its folder is named, where the compiler does not look by itself.
set(highway_flag)
if(NOT HwyHeaders_INCLUDE_DIR IN_LIST CMAKE_CXX_IMPLICIT_INCLUDE_DIRECTORIES)
  set(highway_flag " -isystem ${HwyHeaders_INCLUDE_DIR}")
endif()
cmake_path(RELATIVE_PATH CMAKE_INSTALL_FULL_INCLUDEDIR BASE_DIRECTORY ${CMAKE_INSTALL_FULL_DATADIR}/pkgconfig
  OUTPUT_VARIABLE include_from_pc)
configure_file(cmake/ple.pc.in ple.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/ple.pc DESTINATION ${CMAKE_INSTALL_DATADIR}/pkgconfig)
