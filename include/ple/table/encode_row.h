// SPDX-License-Identifier: Apache-2.0
// Writes rows. Apart from reading, since encoders are long and few programs need them.
#pragma once

#include <algorithm>
#include <cstddef>

#include "ple/core/config.h"
#include "ple/table/row_layout.h"

namespace ple::inline PLE_ABI {

/// Encodes a row's layers() * width() values, each layer in its type; of a layer with a rank R, its first R, which are
/// coefficients. `row` has row_bytes().
/// Errors: ErrorCode::not_supported for a type that cannot be written.
inline void encode_row(const RowLayout& layout, const float* values, std::byte* row) {
  layout.require_encodable();
  const std::size_t width = layout.width();
  std::fill_n(row, layout.row_bytes(), std::byte{0});
  for (std::size_t l = 0; l < layout.layers(); ++l) {
    if (!layout.has(l)) continue;
    with_dtype(*layout.slice(l).dtype, [&]<class T>() {
      if constexpr (EncodableType<T>) {
        constexpr std::size_t n = DtypeTraits<T>::values_per_block;
        T* blocks = reinterpret_cast<T*>(row + layout.slice(l).offset);
        for (std::size_t i = 0; i < layout.stored(l) / n; ++i)
          DtypeTraits<T>::encode(values + l * width + i * n, blocks[i]);
      }
    });
  }
}

}  // namespace ple::inline PLE_ABI
