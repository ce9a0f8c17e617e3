// SPDX-License-Identifier: Apache-2.0
// A model's identity: a number made from its configuration and from samples of its weights.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "ple/core/checksum.h"
#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/memory.h"
#include "ple/model/parameter.h"
#include "ple/table/row_layout.h"
#include "ple/table/row_store.h"

namespace ple::inline PLE_ABI {

namespace detail {

inline constexpr std::size_t identity_samples = 5;  ///< samples: evenly spread, first and last included
inline std::uint64_t sample_place(std::uint64_t count, std::size_t i) {
  return count == 0 ? 0
                    : (count - 1) / (identity_samples - 1) * i +
                          (count - 1) % (identity_samples - 1) * i / (identity_samples - 1);
}

template <class Table>
void add_table(Checksum& sum, const Table& table) {
  sum.add(table.rows());
  sum.add(table.scale());
  sum.add(table.folded());
  sum.add(std::as_bytes(table.pad_identity()));
  const std::string types = table.layout().text();
  sum.add(std::as_bytes(std::span(types)));
  if (table.layout().sum_of_ranks() > 0) {
    const std::string ranks = table.layout().ranks_text();
    sum.add(std::as_bytes(std::span(ranks)));
  }
  for (const auto& basis : table.bases()) {
    if (basis) sum.add(std::as_bytes(std::span(*basis)));
  }
  const auto& store = table.store();
  if (!store || table.rows() == 0) return;
  for (std::size_t i = 0; i < identity_samples; ++i) {
    const RowId id[] = {sample_place(table.rows(), i)};
    const std::byte* row[1];
    const HeldRows pins(*store, id, row);
    sum.add(std::span(row[0], table.layout().row_bytes()));
  }
}

}  // namespace detail

/// The same for models with the same configuration, dtypes and samples: norms, scalars and the PLE table's bases whole,
/// five of its rows, 5 x 64 bytes of every other matrix. It tells sizes, quantizations, further training and other
/// packings of the table apart. It misses a few weights that changed between the samples, and rows set with
/// PleTable::set_row. Where the table lives makes no difference; LoadOptions::weights does. Errors: ErrorCode::file;
/// not_supported for a configuration without for_each_field.
template <class Decoder>
std::uint64_t model_identity(const Decoder& decoder) {
  Checksum sum;
  if constexpr (requires { for_each_field(decoder.config, [](const auto&) {}); }) {
    for_each_field(decoder.config, [&](const auto& field) { sum.add(field); });
  } else {
    fail(ErrorCode::not_supported, "the model has no identity: its configuration has no for_each_field");
  }
  // Changes nothing: parameters() is not const only because load() fills in values.
  const_cast<Decoder&>(decoder).parameters([&]<class V>(Parameter parameter, std::size_t layer, const V& values) {
    sum.add(parameter);
    sum.add(layer);
    if constexpr (requires { values.store(); }) {
      detail::add_table(sum, values);
    } else if constexpr (requires { values.dtype(); }) {
      sum.add(values.dtype());
      const std::size_t bytes = values.bytes(), piece = std::min<std::size_t>(bytes, 64);
      for (std::size_t i = 0; i < detail::identity_samples; ++i) {
        const auto at = static_cast<std::size_t>(detail::sample_place(bytes - piece + 1, i));
        sum.add(std::span(values.data() + at, piece));
      }
    } else {
      sum.add(std::as_bytes(std::span(values)));
    }
  });
  return sum.value();
}

}  // namespace ple::inline PLE_ABI
