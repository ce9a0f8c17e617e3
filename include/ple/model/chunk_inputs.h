// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ple/model/per_layer_inputs.h"  // old name of this header; goes with the next version
