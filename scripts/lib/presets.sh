# SPDX-License-Identifier: Apache-2.0
# The steps of a test run, each for the preset that is named. Sourced after common.sh; `options` go to CMake.
jobs=$(job_count)

configure() { logged "$1-configure" cmake --preset "$1" "${options[@]}"; }
build() { built "$1-build" cmake --build --preset "$1" --parallel "$jobs" "${@:2}"; }
run_tests() { with_news test_news ctest --preset "$1" --parallel "$jobs" "${@:2}" || die "tests failed"; }
test_news() { note "[$SECONDS s] tests are running"; }
