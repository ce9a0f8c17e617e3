// SPDX-License-Identifier: Apache-2.0
// MatFormer: smaller models inside a Gemma 3n. A slice has the first part of each feed-forward's width, and fewer
// layers. Source: Devvrit et al. 2023; Google's MatFormer Lab for Gemma 3n, which says what becomes of shared layers.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/family/gemma3n/config.h"

namespace ple::inline PLE_ABI {

struct MatformerOptions {
  std::vector<std::size_t> intermediate_size = {};  ///< for all layers, or for each that is left; empty: unchanged
  std::vector<std::size_t> skip_layers = {};        ///< layers to leave out, counted from 0

  bool empty() const { return intermediate_size.empty() && skip_layers.empty(); }
};

/// A published slice of E4B: "e2b" is the published E2B; "e1.96b" and "e2.54b" keep some layers' whole width, and are
/// called 'layer-level' in the source. Source: https://huggingface.co/datasets/google/gemma3n-slicing-configs. Errors:
/// ErrorCode::argument for another name.
inline MatformerOptions published_slice(std::string_view name) {
  constexpr std::size_t narrow = 8192, wide = 16384;
  const std::vector<std::size_t> block = {20, 21, 22, 23, 24};
  MatformerOptions options{.intermediate_size = {narrow}, .skip_layers = block};
  if (name == "e2b") return options;
  if (name == "e1.96b") {
    options.intermediate_size.assign(30, narrow);
    options.intermediate_size[4] = wide;
    return options;
  }
  if (name == "e2.54b") {
    options.skip_layers.clear();
    options.intermediate_size.assign(35, narrow);
    options.intermediate_size[4] = wide;
    for (const std::size_t l : block) options.intermediate_size[l] = wide;
    return options;
  }
  fail(ErrorCode::argument, "'", name, "' is no published slice, expected e2b, e1.96b or e2.54b");
}

/// A slice's configuration, and where its layers come from.
struct MatformerSlice {
  Gemma3nConfig config;
  std::vector<std::size_t> layers;  ///< by layer of the slice: its layer in the whole model
};

/// Layers keep attention type and sparsity. Layers that share K and V keep the layer they share with, so it cannot be
/// left out before them. `source` names the whole model in messages. Errors: ErrorCode::argument.
inline MatformerSlice matformer_slice(const Gemma3nConfig& whole, const MatformerOptions& options,
                                      const std::string& source) {
  const auto refuse = [&](const auto&... parts) { fail(ErrorCode::argument, source, ": slice: ", parts...); };
  const std::size_t count = whole.num_layers();
  std::vector<bool> skipped(count, false);
  for (const std::size_t l : options.skip_layers) {
    if (l >= count) refuse("layer ", l, " is to be skipped, expected 0 to ", count - 1);
    if (skipped[l]) refuse("layer ", l, " is to be skipped twice");
    skipped[l] = true;
  }
  MatformerSlice slice{.config = whole, .layers = {}};
  slice.config.layers.clear();
  slice.config.num_kv_shared_layers = 0;
  for (std::size_t l = 0; l < count; ++l) {
    if (skipped[l]) continue;
    if (const std::size_t donor = *whole.kv_layer(l); skipped[donor])
      refuse("layer ", donor, " is to be skipped, but layer ", l, ", which is kept, shares its K and V");
    slice.config.num_kv_shared_layers += l >= whole.first_shared_layer();
    slice.config.layers.push_back(whole.layers[l]);
    slice.layers.push_back(l);
  }
  const std::size_t left = slice.layers.size();
  if (left == 0) refuse("all ", count, " layers are to be skipped");
  const auto& widths = options.intermediate_size;
  if (widths.size() > 1 && widths.size() != left) {
    refuse("intermediate_size has ", widths.size(), " entries, expected 1 or one for each of the ", left,
           " layers that are left");
  }
  for (std::size_t l = 0; l < left && !widths.empty(); ++l) {
    const std::size_t width = widths[widths.size() == 1 ? 0 : l];
    std::size_t& most = slice.config.layers[l].intermediate_size;
    if (width == 0 || width > most) {
      refuse("intermediate_size is ", width, " for layer ", slice.layers[l], ", expected 1 to ", most);
    }
    most = width;
  }
  return slice;
}

}  // namespace ple::inline PLE_ABI
