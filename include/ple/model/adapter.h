// SPDX-License-Identifier: Apache-2.0
// Adapters (LoRA): low-rank changes of a model's matrices, which sessions use without touching the weights.
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
  };

  /// source: a name for messages.
  Adapter(std::string source, std::vector<Part> parts) : source_(std::move(source)), parts_(std::move(parts)) {
    Checksum sum;
    for (const Part& part : parts_) {
      sum.add(part.parameter);
      sum.add(part.layer);
      sum.add(std::as_bytes(std::span(part.a)));
      sum.add(std::as_bytes(std::span(part.b)));
    }
    identity_ = sum.value();
  }

  const std::string& source() const { return source_; }
  const std::vector<Part>& parts() const { return parts_; }
  std::uint64_t identity() const { return identity_; }  ///< differs for other values

 private:
  std::string source_;
  std::vector<Part> parts_;
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

}  // namespace detail

}  // namespace ple::inline PLE_ABI
