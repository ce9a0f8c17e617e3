// SPDX-License-Identifier: Apache-2.0
// What training has learnt, as an adapter: for sessions, and as a folder that PEFT loads, too.
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "ple/checkpoint/peft_writer.h"
#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/model/adapter.h"
#include "ple/model/parameter.h"
#include "ple/table/adapted_rows.h"
#include "ple/train/parameters.h"

namespace ple::inline PLE_ABI {

namespace detail {

inline TrainedRows rows_of(const TrainedParameters& trained) {
  TrainedRows rows;
  for (const auto& entry : trained.rows) {
    rows.ids.push_back(entry.first);
    rows.width = entry.second.values.size();
    rows.values.insert(rows.values.end(), entry.second.values.begin(), entry.second.values.end());
  }
  return rows;
}

/// Errors: ErrorCode::not_supported if weights themselves were trained, which adapters cannot hold.
inline void check_adapter_holds_all(const TrainedParameters& trained) {
  if (trained.weights.empty()) return;
  const auto& key = trained.weights.begin()->first;
  fail(ErrorCode::not_supported, "an adapter holds no ", hf_name("", key.parameter, key.layer),
       ", which was trained itself: train/trained_model.h writes that");
}

}  // namespace detail

/// As it is now; later steps do not change it. Errors: ErrorCode::not_supported if weights themselves were trained.
inline Adapter make_adapter(const TrainedParameters& trained, const std::string& name = "what was learnt") {
  detail::check_adapter_holds_all(trained);
  std::vector<Adapter::Part> parts;
  for (const auto& entry : trained.adapters) {
    const TrainedAdapter& one = entry.second;
    Adapter::Part part{entry.first.parameter,
                       entry.first.layer,
                       hf_name("", entry.first.parameter, entry.first.layer),
                       one.in,
                       one.out,
                       one.rank,
                       one.a.values,
                       one.b.values};
    for (float& b : part.b) b *= one.scale;
    parts.push_back(std::move(part));
  }
  return Adapter(name, std::move(parts), detail::rows_of(trained));
}

/// The adapters alone, as they are now: they point into `trained`.
inline std::vector<PeftPart> peft_parts(const TrainedParameters& trained) {
  std::vector<PeftPart> parts;
  for (const auto& entry : trained.adapters) {
    const TrainedAdapter& one = entry.second;
    parts.push_back({.parameter = entry.first.parameter,
                     .layer = entry.first.layer,
                     .in = one.in,
                     .out = one.out,
                     .rank = one.rank,
                     .alpha = static_cast<double>(one.scale) * static_cast<double>(one.rank),
                     .a = one.a.values,
                     .b = one.b.values,
                     .b_is_transposed = true});
  }
  return parts;
}

/// Errors: as above, and those of the function of this name in checkpoint/peft_writer.h.
inline void write_peft_adapter(const std::filesystem::path& folder, const TrainedParameters& trained,
                               const PeftBase& base = {}) {
  detail::check_adapter_holds_all(trained);
  write_peft_adapter(folder, peft_parts(trained), detail::rows_of(trained), base);
}

}  // namespace ple::inline PLE_ABI
