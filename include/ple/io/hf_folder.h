// SPDX-License-Identifier: Apache-2.0
// Old place; goes with the next version.
#pragma once
#include "ple/checkpoint/hf_folder.h"  // IWYU pragma: export
