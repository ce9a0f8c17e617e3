# SPDX-License-Identifier: Apache-2.0
# What the scripts share: progress, packages, jobs. Sourced by bash, after `set -euo pipefail`.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
logs=$root/build/logs
mkdir -p "$logs"

if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
  bold=$'\e[1m' red=$'\e[31m' green=$'\e[32m' plain=$'\e[0m'
else
  bold='' red='' green='' plain=''
fi

step() { printf '%s[%4d s] %s%s\n' "$bold" "$SECONDS" "$*" "$plain"; }
note() { printf '         %s\n' "$*"; }
die() {
  printf '%s%s%s\n' "$red" "$*" "$plain" >&2
  exit 1
}

# Runs a command with its output in build/logs/NAME.log; shows the log only if the command fails.
logged() {
  local log=$logs/$1.log status=0
  shift
  "$@" >"$log" 2>&1 || status=$?
  if [[ $status -ne 0 ]]; then
    cat "$log"
    die "failed (exit code $status): $*"
  fi
}

# Runs `$1` every half minute while the command after it runs, so that a log that nobody watches in a terminal tells a
# build that goes on from one that hangs.
with_news() {
  local news=$1 status=0
  shift
  [[ ! -t 1 ]] || { "$@"; return; }
  # `sleep` outlives its parent: it must not hold the output open.
  while sleep 30 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do "$news"; done &
  news_pid=$!
  "$@" || status=$?
  end_news
  return "$status"
}
end_news() {
  [[ -z ${news_pid:-} ]] || { kill "$news_pid" && wait "$news_pid"; } 2>/dev/null || true
  news_pid=
}
trap end_news EXIT

# A build: ninja's own status line in a terminal, else as `logged`, with how far it is.
built() {
  if [[ -t 1 ]]; then
    NINJA_STATUS="         [%f/%t] " "${@:2}" || die "failed: ${*:2}"
  else
    built_log=$logs/$1.log
    : >"$built_log"
    NINJA_STATUS="[%f/%t] " with_news build_news logged "$@"
    # A log that succeeds stays unread, and CI takes a warning for an error.
    if grep -q ' warning: ' "$built_log"; then grep ' warning: ' "$built_log"; fi
  fi
}
build_news() {
  local at
  at=$(grep -o '^\[[0-9]*/[0-9]*\]' "$built_log" | tail -n 1 | tr -d '[]' | sed 's|/| of |') || true
  note "[$SECONDS s] compiled: ${at:-nothing yet}"
}

# Parallel compilers: one per processor, and at most one per 2 GB of memory, which the largest file takes.
job_count() {
  local cpus memory
  cpus=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
  memory=$(awk '/^MemAvailable:/ { print int($2 / 2000000) }' /proc/meminfo 2>/dev/null || true)
  memory=${memory:-$cpus}
  [[ $memory -ge 1 ]] || memory=1
  echo $((cpus < memory ? cpus : memory))
}

has_command() { command -v "$1" >/dev/null; }

has_header() {
  local compiler=${CXX:-g++}
  has_command "$compiler" && printf '#if !__has_include(<%s>)\n#error missing\n#endif\n' "$1" |
    "$compiler" -E -x c++ - >/dev/null 2>&1
}

# Whether what a Debian package would bring is here, from whatever source.
has_package() {
  case $1 in
    g++) has_command "${CXX:-g++}" ;;
    cmake) has_command cmake ;;
    make) has_command make ;;
    ninja-build) has_command ninja ;;
    pkg-config) has_command pkg-config || has_command pkgconf ;;
    clang) has_command clang++ ;;
    g++-aarch64-linux-gnu) has_command aarch64-linux-gnu-g++ ;;
    qemu-user) has_command qemu-aarch64 ;;
    libclang-rt-14-dev) compgen -G "$(clang++ -print-runtime-dir 2>/dev/null)/libclang_rt.fuzzer*" >/dev/null ;;
    clang-format-14) has_command clang-format-14 ;;
    clang-tidy-14) has_command clang-tidy-14 ;;
    libhwy-dev) has_header hwy/highway.h ;;
    libfmt-dev) has_header fmt/core.h ;;
    nlohmann-json3-dev) has_header nlohmann/json.hpp ;;
    doctest-dev) has_header doctest/doctest.h ;;
    libeigen3-dev) has_header eigen3/Eigen/Core || has_header Eigen/Core ;;
    *) die "has_package: unknown package $1" ;;
  esac
}

missing_of() {
  local package
  missing=()
  for package in "$@"; do
    has_package "$package" || missing+=("$package")
  done
}

apt_install() {
  # Old or missing package lists are common; if there is no network, those that are there may still do.
  "${as_root[@]}" apt-get update -qq >"$logs/apt.log" 2>&1 || note "apt-get update failed; trying with the lists that are here"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -qq -y --no-install-recommends "$@" >>"$logs/apt.log" 2>&1
}
apt_news() { note "[$SECONDS s] apt-get: $(tail -n 1 "$logs/apt.log" | cut -c 1-80)"; }

# Installs those of the Debian packages that are missing here. Does nothing, and asks for nothing, if none is.
need_packages() {
  missing_of "$@"
  if [[ ${#missing[@]} -gt 0 ]]; then
    local as_root=()
    if ! has_command apt-get; then
      note "This is not Debian or Ubuntu. Missing here, by their Debian names: ${missing[*]}"
      note "Going on: CMake may find them elsewhere, or fetch the libraries."
    elif [[ $(id -u) -ne 0 ]] && ! has_command sudo; then
      note "Missing, and neither root nor sudo to install them. As root: apt-get install ${missing[*]}"
    else
      [[ $(id -u) -eq 0 ]] || as_root=(sudo)
      step "installing ${missing[*]} (apt-get${as_root[0]:+, with sudo})"
      with_news apt_news apt_install "${missing[@]}" ||
        { tail -n 20 "$logs/apt.log"; die "apt-get could not install ${missing[*]}"; }
      hash -r
    fi
  fi
  has_package g++ || die "no C++ compiler (${CXX:-g++}): ple needs g++ 12, clang 14 or newer"
  has_package ninja-build || die "no ninja: https://ninja-build.org"
  local version
  version=$(cmake --version 2>/dev/null | sed -n 's/^cmake version //p')
  [[ -n $version ]] || die "no cmake: ple needs 3.25 or newer, see https://cmake.org/download"
  [[ $(printf '%s\n' 3.25 "$version" | sort -V | head -n 1) == 3.25 ]] ||
    die "$(command -v cmake) is version $version, ple needs 3.25 or newer: https://cmake.org/download or https://apt.kitware.com"
}

# For CMake: a compiler cache where there is one.
launcher=()
if has_command ccache; then launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache); fi
