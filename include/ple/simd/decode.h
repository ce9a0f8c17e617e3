// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "ple/dtype/dtype.h"
#include "ple/simd/backend.h"

namespace ple {

/// y = x, widened: n values, a whole number of blocks, of a type known at run time. Types that files rarely have are
/// decoded in plain C++.
template <Backend B>
void decode(Dtype dtype, const std::byte* x, std::size_t n, float* y) {
  switch (dtype) {
    case Dtype::f32: return B::decode(reinterpret_cast<const f32*>(x), n, y);
    case Dtype::bf16: return B::decode(reinterpret_cast<const bf16*>(x), n, y);
    case Dtype::f16: return B::decode(reinterpret_cast<const f16*>(x), n, y);
    case Dtype::q8_0: return B::decode(reinterpret_cast<const q8_0*>(x), n, y);
    case Dtype::q4_0: return B::decode(reinterpret_cast<const q4_0*>(x), n, y);
    default: return info(dtype).decode(x, n / info(dtype).values_per_block, y);
  }
}

}  // namespace ple
