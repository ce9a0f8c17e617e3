// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ple/nn/positions.h"  // old name of this header; goes with the next version
