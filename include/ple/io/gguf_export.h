// SPDX-License-Identifier: Apache-2.0
// Old place; goes with the next version.
#pragma once
#include "ple/convert/gguf_export.h"  // IWYU pragma: export
