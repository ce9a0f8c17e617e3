// SPDX-License-Identifier: Apache-2.0
// A MatFormer slice of a model, itself a model. Of what it omits, only bytes between needed parts of PLE rows are read.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ple/checkpoint/checkpoint_source.h"
#include "ple/checkpoint/tensor_part.h"
#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/family/gemma3n/matformer.h"
#include "ple/table/ple_table.h"

namespace ple::inline PLE_ABI {

class SlicedSource final : public CheckpointSource {
 public:
  /// Errors name `name`: ErrorCode::argument for a slice that is not in the model; not_supported except for Gemma 3n.
  SlicedSource(std::shared_ptr<const CheckpointSource> whole, const ModelConfig& whole_config,
               const MatformerOptions& options, const std::string& name)
      : whole_(std::move(whole)) {
    const auto* gemma3n = std::get_if<Gemma3nConfig>(&whole_config);
    if (gemma3n == nullptr) {
      fail(ErrorCode::not_supported, name, ": is a ", family_of(whole_config),
           " model, expected Gemma 3n: others have no slices");
    }
    whole_config_ = *gemma3n;
    slice_ = matformer_slice(whole_config_, options, name);
  }

  std::string name() const override { return whole_->name(); }
  std::vector<Token> stop_tokens() const override { return whole_->stop_tokens(); }
  const MatformerSlice& slice() const { return slice_; }

  bool has(Parameter parameter, std::size_t layer = 0) const override {
    return whole_->has(parameter, whole_layer(parameter, layer));
  }

  /// In place in the file, or a copy if it is not contiguous there: columns of `down`, rows of the context projection
  /// behind a skipped layer, and the PLE table (table() avoids that copy). Errors: also ErrorCode::shape, file.
  Tensor tensor(Parameter parameter, std::size_t layer = 0) const override {
    if (is_cut(parameter)) return part(parameter, layer).tensor();
    return whole_->tensor(parameter, whole_layer(parameter, layer));
  }

  std::optional<std::string> chat_template() const override { return whole_->chat_template(); }
  SamplingOptions recommended_sampling() const override { return whole_->recommended_sampling(); }
  std::filesystem::path tokenizer_file() const override { return whole_->tokenizer_file(); }
  std::vector<std::filesystem::path> files() const override { return whole_->files(); }

  /// Whether a slice may have only a part of it.
  static bool is_cut(Parameter parameter) {
    return parameter == Parameter::gate || parameter == Parameter::up || parameter == Parameter::down ||
           parameter == Parameter::ple_table || parameter == Parameter::ple_context_projection;
  }

  /// The slice's part of such a parameter. Errors: those of the whole model's tensor; ErrorCode::shape if its shape is
  /// not the configuration's, or if the part is not whole blocks.
  TensorPart part(Parameter parameter, std::size_t layer) const {
    Tensor tensor = whole_->tensor(parameter, whole_layer(parameter, layer));
    const std::size_t d = whole_config_.hidden_size, p = whole_config_.hidden_size_per_layer_input,
                      packed = whole_config_.num_layers() * p;
    if (parameter == Parameter::ple_table) {
      const std::size_t rows = whole_config_.vocab_size_per_layer_input;
      return {expect(std::move(tensor), rows, packed), {{0, rows}}, kept_layers(p)};
    }
    if (parameter == Parameter::ple_context_projection)
      return {expect(std::move(tensor), packed, d), kept_layers(p), {{0, d}}};
    const std::size_t width = slice_.config.layers[layer].intermediate_size,
                      whole_width = whole_config_.layers[slice_.layers[layer]].intermediate_size;
    if (parameter == Parameter::down) return {expect(std::move(tensor), d, whole_width), {{0, d}}, {{0, width}}};
    return {expect(std::move(tensor), whole_width, d), {{0, width}}, {{0, d}}};
  }

  /// The table without skipped layers' parts, in place; nothing if no layer is skipped. Errors: those of part().
  std::optional<TableSource> table() const {
    if (slice_.layers.size() == whole_config_.num_layers()) return std::nullopt;
    return cut(stored_table(part(Parameter::ple_table, 0).whole(), whole_config_.num_layers()));
  }

  /// A table that was packed for the whole model, without skipped layers' parts; any other as it is.
  TableSource cut(TableSource table) const {
    if (table.layout.layers() != whole_config_.num_layers()) return table;
    const std::size_t width = table.layout.width();
    table.layout = table.layout.select(slice_.layers);
    if (!table.bases.empty()) {
      std::vector<Tensor> bases;
      for (const std::size_t l : slice_.layers) bases.push_back(table.bases[l]);
      table.bases = std::move(bases);
    }
    if (table.pad_identity.empty()) return table;
    std::vector<float> identity;
    for (const std::size_t l : slice_.layers) {
      const float* values = table.pad_identity.data() + l * width;
      identity.insert(identity.end(), values, values + width);
    }
    table.pad_identity = std::move(identity);
    return table;
  }

 private:
  std::size_t whole_layer(Parameter parameter, std::size_t layer) const {
    return is_of_layer(parameter) ? slice_.layers.at(layer) : layer;
  }

  std::vector<IndexRange> kept_layers(std::size_t width) const {
    std::vector<IndexRange> runs;
    for (const std::size_t l : slice_.layers) runs.push_back({l * width, width});
    return runs;
  }

  static Tensor expect(Tensor tensor, std::size_t rows, std::size_t cols) {
    if (tensor.shape == std::vector<std::uint64_t>{rows, cols}) return tensor;
    fail(ErrorCode::shape, tensor.file, ": ", tensor.name, ": shape is ", shape_text(tensor.shape), ", expected ",
         shape_text({rows, cols}));
  }

  std::shared_ptr<const CheckpointSource> whole_;
  Gemma3nConfig whole_config_;
  MatformerSlice slice_;
};

}  // namespace ple::inline PLE_ABI
