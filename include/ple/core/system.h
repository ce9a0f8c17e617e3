// SPDX-License-Identifier: Apache-2.0
// What the operating system provides, files and memory. Only core/os.h and core/io_uring.h depend on the system.
#pragma once

#include "ple/core/config.h"
#include "ple/core/file.h"
#include "ple/core/mapped_file.h"
#include "ple/core/memory_use.h"
#include "ple/core/os.h"
#include "ple/core/output_file.h"
