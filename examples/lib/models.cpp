// SPDX-License-Identifier: Apache-2.0
#include <ple/instantiate.h>
