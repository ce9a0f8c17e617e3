// SPDX-License-Identifier: Apache-2.0
// Old place; goes with the next version.
#pragma once
#include "ple/model/kv_caches.h"  // IWYU pragma: export
