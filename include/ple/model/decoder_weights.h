// SPDX-License-Identifier: Apache-2.0
// How a model loads its weights, and how they are laid out in memory.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <type_traits>
#include <vector>

#include "ple/core/arena.h"
#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/executor.h"
#include "ple/core/mapped_file.h"
#include "ple/core/thread_pool.h"
#include "ple/model/parameter.h"
#include "ple/nn/expert_cache.h"
#include "ple/simd/backend.h"
#include "ple/simd/decode.h"
#include "ple/table/ple_table.h"
#include "ple/tensor/matrix.h"

namespace ple::inline PLE_ABI {

/// Where weights of integer types live.
enum class WeightStorage {
  repacked,  ///< in memory, repacked for products: as many bytes as in the file, which is read once
  mapped,    ///< in the mapped file: loads at once and can leave memory again, but tokens take several times as long
  interleaved = repacked  ///< Old name; goes with the next version.
};

struct LoadOptions {
  TableStorage table = Mapped{};  ///< where the PLE table's rows live
  WeightStorage weights = WeightStorage::repacked;
  std::size_t threads = 0;  ///< that repack weights; 0: one per hardware thread
  /// Most bytes of repacked experts in memory, of a mixture of experts. The others stay in the file, which is read when
  /// a token goes to them; the least recently used makes room. 0: all are repacked on loading.
  std::uint64_t expert_budget = 0;
};

namespace detail {

inline constexpr std::size_t weights_block_bytes = std::size_t{8} << 20;  // of the first block; later ones are larger

/// Repacks a matrix that is used in products only. Not an embedding, which is read row by row, nor a matrix whose
/// products begin inside a tile. Returns whether it did.
template <class Model>
bool repack(Model& model, Parameter parameter, std::size_t layer, Matrix<typename Model::T>& values, Executor& executor,
            Arena& arena) {
  if (parameter == Parameter::token_embedding) return false;
  if (parameter == Parameter::ple_context_projection && model.config.hidden_size_per_layer_input % rows_per_tile != 0) {
    return false;
  }
  if constexpr (requires { model.config.moe_intermediate_size; }) {
    const std::size_t rows =
        parameter == Parameter::expert_down ? model.config.hidden_size : model.config.moe_intermediate_size;
    if (part_of(parameter) == ParameterPart::experts && rows % rows_per_tile != 0) return false;
  }
  if constexpr (requires { model.blocks[layer].repack(parameter, executor, arena); }) {
    if (is_of_layer(parameter) && model.blocks[layer].repack(parameter, executor, arena)) return true;
  }
  if constexpr (Matrix<typename Model::T>::may_be_integers) values.repack(executor, arena);
  return values.packed();
}

/// The matrices of a layer's experts, [experts, rows, cols], as one of all rows, which is how they lie in memory.
inline void join_experts(Tensor& stack, std::uint64_t experts, std::uint64_t all_rows, std::uint64_t cols) {
  const std::vector<std::uint64_t> expected{experts, all_rows / experts, cols};
  if (stack.shape != expected) {
    fail(ErrorCode::shape, stack.file, ": ", stack.name, ": shape is ", shape_text(stack.shape), ", expected ",
         shape_text(expected));
  }
  stack.shape = {all_rows, cols};
}

/// Decodes a vector of any type; only of float types if the program names the weights' type, to compile no others.
template <class T, Backend B>
void load_vector(const Tensor& tensor, std::vector<float>& values) {
  using Types = std::conditional_t<StoredType<T>, Floats, Any>;
  Matrix<Types> row(1, values.size());
  Tensor as_row = tensor;
  if (as_row.shape.size() == 1) as_row.shape.insert(as_row.shape.begin(), 1);
  if (as_row.shape != std::vector<std::uint64_t>{1, values.size()}) {
    fail(ErrorCode::shape, tensor.file, ": ", tensor.name, ": shape is ", shape_text(tensor.shape), ", expected ",
         shape_text({values.size()}));
  }
  row.load(as_row);
  ple::decode<B, Types>(row.dtype(), row.data(), values.size(), values.data());
}

/// Values in the widest rows of integer and of bf16 matrices, which set the size of product_workspace; 0: there are
/// none.
struct WidestRows {
  std::size_t integers = 0, bf16 = 0;
};

template <class Model>
WidestRows widest_rows(Model& model) {
  WidestRows widest;
  model.parameters([&](Parameter, std::size_t, const auto& values) {
    if constexpr (requires { values.holds_integers(); }) {
      if (values.holds_integers()) widest.integers = (std::max)(widest.integers, values.cols());
      if (values.dtype() == Dtype::bf16) widest.bf16 = (std::max)(widest.bf16, values.cols());
    }
  });
  return widest;
}

}  // namespace detail

/// Makes the blocks of a model that has none, and loads all weights: see Decoder::load.
template <class Model, class Checkpoint>
void load_weights(Model& model, const Checkpoint& checkpoint, const LoadOptions& options) {
  std::optional<TableSource> source;
  if constexpr (requires { checkpoint.ple_table(); }) source = checkpoint.ple_table();
  const auto tensor_of = [&](Parameter parameter, std::size_t layer) {
    Tensor tensor = checkpoint.tensor(parameter, layer);
    model.watch(tensor.map);
    return tensor;
  };
  const bool repacked = options.weights == WeightStorage::repacked;
  ThreadPool pool(repacked ? options.threads : 1);
  Arena arena(detail::weights_block_bytes);
  const auto drop = [](const Tensor& tensor) {
    if (tensor.map) tensor.map->drop(tensor.offset, tensor.bytes);
  };
  Tensor embedding_tensor;
  std::vector<std::shared_ptr<const MappedFile>> expert_files;
  model.parameters_block_by_block([&]<class V>(Parameter parameter, std::size_t layer, V& values) {
    if constexpr (std::same_as<V, std::vector<float>>) {
      detail::load_vector<typename Model::T, typename Model::B>(tensor_of(parameter, layer), values);
    } else if constexpr (std::same_as<V, typename Model::Table>) {
      if (source) {
        values.load(*source, options.table);
      } else if (!options.table.prunes()) {
        values.load(tensor_of(parameter, layer), options.table);
      }
    } else {
      Tensor tensor = tensor_of(parameter, layer);
      if constexpr (requires { model.config.num_experts; }) {
        if (part_of(parameter) == ParameterPart::experts)
          detail::join_experts(tensor, model.config.num_experts, values.rows(), values.cols());
      }
      if (parameter == Parameter::token_embedding && source && source->vocabulary)
        values = V(source->vocabulary->rows(), values.cols());
      values.load(tensor);
      if (parameter == Parameter::token_embedding) {
        embedding_tensor = tensor;
      } else if (options.expert_budget > 0 && part_of(parameter) == ParameterPart::experts) {
        if (tensor.map && std::find(expert_files.begin(), expert_files.end(), tensor.map) == expert_files.end())
          expert_files.push_back(tensor.map);
      } else if (repacked && detail::repack(model, parameter, layer, values, pool, arena)) {
        drop(tensor);
      }
    }
  });
  model.finalize();
  if constexpr (Matrix<typename Model::T>::may_be_integers && requires { model.head; }) {
    if constexpr (requires { model.blocks[0].experts.cache; }) {
      if (repacked && options.expert_budget > 0 && model.config.num_experts > 0) {
        using Cache = ExpertCache<typename Model::T, typename Model::B>;
        const auto cache = std::make_shared<Cache>(options.expert_budget);
        for (auto& block : model.blocks) {
          block.experts.cache = cache;
          block.experts.files = expert_files;
        }
      }
    }
    if (repacked && model.config.tie_word_embeddings) model.head.weight.repack(pool, arena);
    if (model.head.weight.packed()) drop(embedding_tensor);
  }
}

/// Repacks the weights of a complete decoder.
template <class Model>
void repack_weights(Model& model, Executor& executor) {
  Arena arena(detail::weights_block_bytes);
  model.parameters([&]<class V>(Parameter parameter, std::size_t layer, V& values) {
    if constexpr (std::same_as<V, Matrix<typename Model::T>>) {
      detail::repack(model, parameter, layer, values, executor, arena);
    }
  });
  if constexpr (Matrix<typename Model::T>::may_be_integers) model.head.weight.repack(executor, arena);
}

}  // namespace ple::inline PLE_ABI
