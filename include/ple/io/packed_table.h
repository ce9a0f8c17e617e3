// SPDX-License-Identifier: Apache-2.0
// Old place; goes with the next version.
#pragma once
#include "ple/checkpoint/packed_table.h"  // IWYU pragma: export
