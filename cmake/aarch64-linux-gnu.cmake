# SPDX-License-Identifier: Apache-2.0
# A toolchain: programs for 64-bit ARM, built by Debian's cross compiler (g++-aarch64-linux-gnu) and run by qemu-user.
# The compiler looks into /usr/include too, after its own folders, so libraries of headers alone need no second copy.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu)
