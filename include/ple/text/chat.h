// SPDX-License-Identifier: Apache-2.0
// Old place; goes with the next version.
#pragma once
#include "ple/text/chat_format.h"  // IWYU pragma: export
