// SPDX-License-Identifier: Apache-2.0
// The numbers that `inspect` shows, taken from what ple::inspect found.
#pragma once

#include <ple/convert/inspect.h>
#include <ple/model/kv_caches.h>
#include <ple/table/streamed.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

namespace examples {

inline std::string parameters_text(std::uint64_t n) {
  const auto value = static_cast<double>(n);
  if (n >= 100'000'000) return fmt::format("{:.3f} B", value / 1e9);
  if (n >= 100'000) return fmt::format("{:.2f} M", value / 1e6);
  return fmt::format("{}", n);
}

/// "1.905 B (1,905,495,648)"
inline std::string exact_text(std::uint64_t n) {
  std::string digits = std::to_string(n);
  for (std::size_t i = digits.size(); i > 3; i -= 3) digits.insert(i - 3, ",");
  if (n < 100'000) return digits;
  return fmt::format("{} ({})", parameters_text(n), digits);
}

inline std::string bytes_text(std::uint64_t n) {
  const auto value = static_cast<double>(n);
  if (n >= std::uint64_t{1} << 30) return fmt::format("{:.2f} GiB", value / (1 << 30));
  if (n >= 1 << 20) return fmt::format("{:.1f} MiB", value / (1 << 20));
  if (n >= 1 << 10) return fmt::format("{:.2f} KiB", value / (1 << 10));
  return fmt::format("{} B", n);
}

/// What a part of the model holds, and how it is drawn.
struct Share {
  const char *name, *colour;
  std::uint64_t parameters = 0, bytes = 0;
  std::map<std::string, std::uint64_t> by_dtype = {};

  void add(std::uint64_t count, const std::string& dtype, std::uint64_t size) {
    parameters += count;
    bytes += size;
    by_dtype[dtype] += size;
  }
};

/// What one layer holds. Its slice of the PLE table is not read but for one row of it.
struct Layer {
  ple::AttentionType attention;
  bool shares_kv;
  std::array<std::uint64_t, 8> parameters{};  // by ple::ParameterPart
  std::uint64_t kv_cache = 0;                 // bytes at the report's context
};

struct TokenReads {
  std::uint64_t layers = 0, head = 0, table_row = 0, embedding_row = 0;
  std::uint64_t kv_cache = 0;  // by the token at the end of the context
  std::uint64_t weights() const { return layers + head + table_row + embedding_row; }
};

struct KvCacheBytes {
  std::uint64_t context = 0, sliding = 0, full = 0;
  std::uint64_t total() const { return sliding + full; }
};

/// Memory with one choice of where the PLE table lives.
struct Memory {
  const char *name, *note;
  std::uint64_t weights, table, may_grow;  // bytes; may_grow: pages of the table that come as rows are touched
};

struct Report {
  std::string name, family, shape;
  bool has_files = false;
  ple::ParameterGroups groups;
  std::vector<Share> parts;   // finer than groups
  std::vector<Share> google;  // text, vision, audio, PLE
  std::vector<Layer> layers;
  TokenReads reads;
  std::string kv_dtype;  // what keys and values are kept in
  KvCacheBytes kv;
  std::vector<KvCacheBytes> kv_by_context;
  std::vector<Memory> memory;
  std::uint64_t table_row_values = 0;
  std::size_t max_context = 0, chunk = 0;
  std::uint64_t rest = 0, rest_bytes = 0;  // of the files: tensors that no part of the model has
  std::uint64_t unused = 0;                // parameters of the text that no token needs

  bool has_ple() const { return groups.ple > 0; }
};

namespace detail {

template <class Config>
KvCacheBytes kv_cache(const Config& config, std::size_t context, ple::Dtype dtype) {
  KvCacheBytes bytes{.context = context};
  for (std::size_t l = 0; l < config.num_layers(); ++l) {
    const bool full = config.layers[l].attention == ple::AttentionType::full;
    (full ? bytes.full : bytes.sliding) +=
        ple::kv_cache_bytes(config, l, {.context = context, .kv_cache_dtype = dtype});
  }
  return bytes;
}

inline void add_parameters(Report& report, const ple::Inspection& found) {
  using ple::ParameterPart;
  // In the order of ple::ParameterPart.
  std::vector<Share> parts{{"token embedding", "#8168b3"}, {"PLE table", "#e58a2f"},
                           {"attention", "#2c6aa8"},       {"feed-forward", "#6aaed6"},
                           {"experts", "#b6483f"},         {"PLE steps", "#f3c178"},
                           {"AltUp, LAuReL", "#4f9d86"},   {"norms, other", "#a3adb8"},
                           {"vision", "#c25b7a"},          {"audio", "#7f9a3c"}};
  Share text{"text", "#2c6aa8"}, vision{"vision", "#c25b7a"}, audio{"audio", "#7f9a3c"}, table{"PLE", "#e58a2f"};
  for (const ple::StoredParameter& stored : found.text) {
    const ParameterPart part = ple::part_of(stored.of.parameter);
    const std::uint64_t n = stored.of.count();
    parts[static_cast<std::size_t>(part)].add(n, stored.dtype, stored.bytes);
    (part == ParameterPart::ple_table ? table : text).add(n, stored.dtype, stored.bytes);
    if (!stored.of.used) report.unused += n;
    if (stored.of.parameter >= ple::Parameter::input_norm) {
      report.layers[stored.of.layer].parameters[static_cast<std::size_t>(part)] += n;
    } else if (part == ParameterPart::ple_table) {
      for (Layer& layer : report.layers) layer.parameters[static_cast<std::size_t>(part)] += n / report.layers.size();
    }
  }
  const auto tower = [](const std::vector<ple::TensorInfo>& tensors, Share& a, Share& b) {
    for (const ple::TensorInfo& tensor : tensors) {
      const std::uint64_t n = ple::detail::count_of({&tensor, 1});
      a.add(n, tensor.dtype, tensor.bytes);
      b.add(n, tensor.dtype, tensor.bytes);
    }
  };
  tower(found.vision, parts[8], vision);
  tower(found.audio, parts[9], audio);
  for (const Share& part : parts) {
    if (part.parameters > 0) report.parts.push_back(part);
  }
  std::stable_sort(report.parts.begin(), report.parts.end(),
                   [](const Share& a, const Share& b) { return a.parameters > b.parameters; });
  report.google = {text, vision, audio, table};
}

inline void add_reads(Report& report, const ple::Inspection& found, bool tied) {
  for (const ple::StoredParameter& stored : found.text) {
    if (!stored.of.used) continue;
    const std::uint64_t row = stored.of.shape.size() == 2 ? stored.bytes / stored.of.shape[0] : stored.bytes;
    switch (stored.of.parameter) {
      case ple::Parameter::ple_table: report.reads.table_row = row; break;
      case ple::Parameter::token_embedding:
        report.reads.embedding_row = row;
        if (tied) report.reads.head = stored.bytes;
        break;
      case ple::Parameter::head: report.reads.head = stored.bytes; break;
      default:
        report.reads.layers += stored.of.experts_per_token > 0
                                   ? stored.bytes / stored.of.shape[0] * stored.of.experts_per_token
                                   : stored.bytes;
    }
  }
}

/// Weights are mapped from their files whatever the table's storage; after some text all that is used was touched.
inline void add_memory(Report& report, const ple::Inspection& found) {
  std::uint64_t table = 0, ple_steps = 0, weights = 0;
  for (const ple::StoredParameter& stored : found.text) {
    const ple::ParameterPart part = ple::part_of(stored.of.parameter);
    if (part == ple::ParameterPart::ple_table) {
      table += stored.bytes;
    } else if (stored.of.used) {
      weights += stored.bytes;
      if (part == ple::ParameterPart::ple_step) ple_steps += stored.bytes;
    }
  }
  if (!report.has_ple()) {
    report.memory = {{"no PLE table", "weights are pages of their files", weights, 0, 0}};
    return;
  }
  const std::uint64_t budget = std::min<std::uint64_t>(ple::Streamed{}.budget, table);
  report.memory = {{"resident", "the table is read when the model is opened", weights, table, 0},
                   {"mapped", "no row yet; then pages as rows are touched, at most the table", weights, 0, table},
                   {"streamed", "its default budget of rows, and room for those being read", weights, budget, 0},
                   {"pruned", "no table, and so no PLE steps: another model", weights - ple_steps, 0, 0}};
}

}  // namespace detail

inline Report make_report(const ple::Inspection& found, std::size_t context, ple::Dtype kv_cache_dtype) {
  Report report;
  report.name = found.source;
  report.has_files = found.has_files;
  report.groups = found.groups;
  for (const ple::TensorInfo& tensor : found.rest) report.rest_bytes += tensor.bytes;
  report.rest = ple::detail::count_of(found.rest);
  report.chunk = ple::StateOptions{}.chunk;
  report.kv_dtype = ple::name_of(kv_cache_dtype);
  std::visit(
      [&](const auto& config) {
        if (context == 0 || context > config.max_position_embeddings) {
          throw std::runtime_error(fmt::format("--context is {}, expected 1 to {}, the model's longest", context,
                                               config.max_position_embeddings));
        }
        report.family = config.family;
        report.max_context = config.max_position_embeddings;
        std::size_t full = 0;
        for (std::size_t l = 0; l < config.num_layers(); ++l) {
          const ple::LayerConfig layer = config.layer(l);
          const ple::AttentionType attention = layer.attention;
          full += attention == ple::AttentionType::full;
          report.layers.push_back(
              {.attention = attention,
               .shares_kv = config.kv_layer(l) != l,
               .kv_cache = ple::kv_cache_bytes(config, l, {.context = context, .kv_cache_dtype = kv_cache_dtype})});
          const std::size_t seen =
              attention == ple::AttentionType::full ? context : std::min(context, config.sliding_window);
          report.reads.kv_cache += 2 * seen * ple::bytes_of(kv_cache_dtype, layer.num_key_value_heads * layer.head_dim);
        }
        report.shape = fmt::format("{} layers ({} full, {} sliding over {} positions{}), width {}", config.num_layers(),
                                   full, config.num_layers() - full, config.sliding_window,
                                   config.num_kv_shared_layers == 0
                                       ? ""
                                       : fmt::format("; the last {} share K and V", config.num_kv_shared_layers),
                                   config.hidden_size);
        report.table_row_values = config.num_layers() * config.hidden_size_per_layer_input;
        report.kv = detail::kv_cache(config, context, kv_cache_dtype);
        // From 1024 on, or four doublings below the longest.
        for (std::size_t c = std::clamp<std::size_t>(report.max_context / 16, 1, 1024);;
             c = std::min(2 * c, report.max_context)) {
          report.kv_by_context.push_back(detail::kv_cache(config, c, kv_cache_dtype));
          if (c == report.max_context) break;
        }
        detail::add_reads(report, found, config.tie_word_embeddings);
      },
      found.config);
  detail::add_parameters(report, found);
  detail::add_memory(report, found);
  return report;
}

}  // namespace examples
