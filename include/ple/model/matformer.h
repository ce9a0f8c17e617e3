// SPDX-License-Identifier: Apache-2.0
// Old place; goes with the next version.
#pragma once
#include "ple/family/gemma3n/matformer.h"  // IWYU pragma: export
