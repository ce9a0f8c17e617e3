// SPDX-License-Identifier: Apache-2.0
#pragma once

#define PLE_VERSION_MAJOR 0
#define PLE_VERSION_MINOR 1
#define PLE_VERSION_PATCH 0
