// SPDX-License-Identifier: Apache-2.0
// Adapters: low-rank changes of a model's matrices (LoRA) and trained rows of its PLE table, which sessions use without
// touching the weights.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ple/core/checksum.h"
#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/memory.h"
#include "ple/model/language_model.h"
#include "ple/model/parameter.h"
#include "ple/nn/low_rank.h"
#include "ple/table/adapted_rows.h"

namespace ple::inline PLE_ABI {

/// Matrices that an adapter may change: those whose products go through multiply() in nn/products.h.
inline constexpr std::array adaptable_parameters = {Parameter::query,      Parameter::key,
                                                    Parameter::value,      Parameter::attention_output,
                                                    Parameter::gate,       Parameter::up,
                                                    Parameter::down,       Parameter::ple_gate,
                                                    Parameter::ple_output, Parameter::ple_context_projection};

/// Values of an adapter, in f32. Never changes; any number of sessions may share one. checkpoint/peft_adapter.h reads
/// files.
class Adapter {
 public:
  /// What one matrix gets: y += B (A x).
  struct Part {
    Parameter parameter;
    std::size_t layer;
    std::string name;  ///< for messages
    std::size_t in, out, rank;
    AlignedVector<float> a;  ///< [rank, in]
    AlignedVector<float> b;  ///< [rank, out]: transposed, times the adapter's scale
    float scale = 1;         ///< which B has in it already: alpha / rank, for reports
  };

  /// source: a name for messages. Errors: ErrorCode::argument for rows that are not as TrainedRows says.
  Adapter(std::string source, std::vector<Part> parts, TrainedRows rows = {})
      : source_(std::move(source)), parts_(std::move(parts)), rows_(std::move(rows)) {
    rows_.check(source_);
    Checksum sum;
    for (const Part& part : parts_) {
      sum.add(part.parameter);
      sum.add(part.layer);
      sum.add(std::as_bytes(std::span(part.a)));
      sum.add(std::as_bytes(std::span(part.b)));
    }
    if (!rows_.empty()) {  // without rows, the identity stays what it was before adapters had any
      sum.add(rows_.width);
      sum.add(std::as_bytes(std::span(rows_.ids)));
      sum.add(std::as_bytes(std::span(rows_.values)));
    }
    identity_ = sum.value();
  }

  const std::string& source() const { return source_; }
  const std::vector<Part>& parts() const { return parts_; }
  const TrainedRows& rows() const { return rows_; }     ///< of the PLE table; none in most adapters
  std::uint64_t identity() const { return identity_; }  ///< differs for other values

 private:
  std::string source_;
  std::vector<Part> parts_;
  TrainedRows rows_;
  std::uint64_t identity_ = 0;
};

namespace detail {

template <class Model>
inline constexpr bool takes_adapters = [] {
  if constexpr (requires { Model::Layer::takes_adapters; }) return Model::Layer::takes_adapters;
  return false;
}();

/// The model's matrix that a part changes: its values' address. Errors: ErrorCode::missing, shape, not_supported.
template <class Model>
const void* adapted_matrix(const Model& model, const Adapter& adapter, const Adapter::Part& part) {
  const void* found = nullptr;
  // Changes nothing: parameters() is not const only because load() fills in values.
  const_cast<Model&>(model).parameters([&]<class V>(Parameter parameter, std::size_t layer, const V& values) {
    if constexpr (requires {
                    values.dtype();
                    values.rows();
                    values.cols();
                    values.data();
                  }) {
      if (parameter != part.parameter || layer != part.layer) return;
      if (values.rows() != part.out || values.cols() != part.in) {
        fail(ErrorCode::shape, adapter.source(), ": ", part.name, ": is for a matrix of [", part.out, ", ", part.in,
             "], the model's has [", values.rows(), ", ", values.cols(), "]");
      }
      found = values.data();
    }
  });
  if (found == nullptr) fail(ErrorCode::missing, adapter.source(), ": ", part.name, ": the model has no such matrix");
  if (part.parameter == Parameter::ple_context_projection && model.table.folded()) {
    fail(ErrorCode::not_supported, adapter.source(), ": ", part.name,
         ": the model's table was folded and has no context projection to adapt");
  }
  return found;
}

/// Errors: ErrorCode::argument for no adapter or a scale that is not finite; missing; shape; not_supported.
template <class Model>
AdaptedWeights bind_adapters(const Model& model, const std::vector<SessionAdapter>& adapters, std::uint64_t& identity) {
  AdaptedWeights bound;
  Checksum sum;
  for (const auto& [adapter, scale] : adapters) {
    if (!adapter) fail(ErrorCode::argument, "SessionOptions::adapters: an entry without an adapter");
    if (!std::isfinite(scale)) {
      fail(ErrorCode::argument, adapter->source(), ": the session's scale is ", scale, ", expected a finite number");
    }
    if (!takes_adapters<Model>) fail(ErrorCode::not_supported, adapter->source(), ": this model takes no adapters");
    for (const Adapter::Part& part : adapter->parts()) {
      // Rows are not const, since most are activations; these are only read.
      bound.add(adapted_matrix(model, *adapter, part),
                {{const_cast<float*>(part.a.data()), part.rank, part.in, part.in},
                 {const_cast<float*>(part.b.data()), part.rank, part.out, part.out},
                 scale});
    }
    sum.add(adapter->identity());
    sum.add(scale);
  }
  identity = adapters.empty() ? 0 : sum.value();
  return bound;
}

/// Errors: ErrorCode::shape, argument; not_supported for a model or a table whose rows are not those of tokens.
template <class Model>
void check_trained_rows(const Model& model, const Adapter& adapter) {
  const TrainedRows& rows = adapter.rows();
  if (rows.empty()) return;
  const auto refuse = [&](ErrorCode code, const auto&... why) {
    fail(code, adapter.source(), ": has ", rows.ids.size(), " rows of a PLE table, ", why...);
  };
  if (!model.has_ple()) refuse(ErrorCode::not_supported, "the model has none");
  const auto& table = model.table;
  if (rows.width != table.cols())
    refuse(ErrorCode::shape, "of ", rows.width, " values, the model's have ", table.cols());
  if (table.folded()) refuse(ErrorCode::not_supported, "the model's was folded: its rows are other values");
  if (table.vocabulary())
    refuse(ErrorCode::not_supported, "the model's was cut down: its rows are not those of tokens");
  if (table.ids_per_token() != 1) {
    refuse(ErrorCode::not_supported, "one for each token, the model's table has ", table.ids_per_token(),
           " for each: keys of n-grams");
  }
  bool has_values = false;
  for (std::size_t l = 0; l < model.config.num_layers(); ++l) has_values |= table.has(l);
  if (!has_values) refuse(ErrorCode::not_supported, "the model's was pruned");
  if (rows.ids.back() >= table.rows()) {
    refuse(ErrorCode::argument, "one of them ", rows.ids.back(), ", the model's table has ", table.rows(), " rows");
  }
}

/// What a session does to the table's rows; after bind_adapters(). Errors: those of check_trained_rows().
template <class Model>
AdaptedRows bind_adapted_rows(const Model& model, const std::vector<SessionAdapter>& adapters) {
  AdaptedRows bound;
  for (const auto& [adapter, scale] : adapters) {
    check_trained_rows(model, *adapter);
    bound.add(adapter->rows(), scale);
  }
  return bound;
}

}  // namespace detail

}  // namespace ple::inline PLE_ABI
