# SPDX-License-Identifier: Apache-2.0
# The steps of a test run, each for the preset that is named. Sourced after common.sh; `options` go to CMake.
jobs=$(job_count)

configure() { logged "$1-configure" cmake --preset "$1" "${options[@]}"; }
build() { built "$1-build" cmake --build --preset "$1" --parallel "$jobs" "${@:2}"; }
# The unit tests of some folders alone: what takes longest to compile, begun last, would leave the other processors idle.
build_folders() {
  local objects=("${@:2}")
  objects=("${objects[@]/#/tests/CMakeFiles/ple_tests.dir/Unity/unity_}")
  build "$1" --target "${objects[@]/%/_cxx.cxx.o}"
}
run_tests() { ctest --preset "$1" --parallel "$jobs" || die "tests failed"; }
