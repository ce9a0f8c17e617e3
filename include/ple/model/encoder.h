// SPDX-License-Identifier: Apache-2.0
// An encoder: token embedding, a stack of blocks whose positions see whole texts, and one vector for each text.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>
#include <span>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/executor.h"
#include "ple/core/mapped_file.h"
#include "ple/core/shared_pool.h"
#include "ple/core/token.h"
#include "ple/model/decoder_weights.h"
#include "ple/model/encoder_pass.h"
#include "ple/model/parameter.h"
#include "ple/nn/linear.h"
#include "ple/nn/per_layer.h"
#include "ple/nn/products.h"
#include "ple/nn/rms_norm.h"
#include "ple/tensor/matrix.h"
#include "ple/tensor/rows.h"

namespace ple::inline PLE_ABI {

/// A text's vector is W times the mean of the final norm's outputs over all its tokens, made 1 long. Its per-layer
/// inputs come from the token embeddings alone: there is no table. Computing never changes it: any number of threads
/// may use it.
template <class Block>
class Encoder {
 public:
  using T = typename Block::Dtype;
  using B = typename Block::Simd;
  using Config = typename Block::Config;
  using Table = void;  // none to load

  Config config;
  Matrix<T> embedding;  ///< [vocab_size, d]
  PerLayerProjection<T, B> per_layer_projection;
  std::vector<Block> blocks;
  RmsNorm<B> final_norm;
  Linear<T, B> embedding_projection;  ///< W: [embedding_dim, d]

  /// Has shapes but no values: fill them in through `parameters`, or use `load`. Errors: ErrorCode::config.
  explicit Encoder(const Config& c) : Encoder(c, WithoutBlocks{}) {
    for (std::size_t l = 0; l < config.num_layers(); ++l) blocks.emplace_back(config, l);
  }

  /// Loads any type with config<Config>() and tensor(Parameter, layer), as Decoder::load does. Errors: what the
  /// checkpoint throws; ErrorCode::config, shape, dtype.
  template <class Checkpoint>
  static Encoder load(const Checkpoint& checkpoint, const LoadOptions& options = {}) {
    Encoder model(checkpoint.template config<Config>(), WithoutBlocks{});
    load_weights(model, checkpoint, options);
    return model;
  }

  /// Calls f(Parameter, layer, values) for all parameters: values is a Matrix or a vector<float>.
  template <class F>
  void parameters(F&& f) {
    parameters_before_blocks(f);
    for (std::size_t l = 0; l < blocks.size(); ++l) parameters_of_block(l, f);
    parameters_after_blocks(f);
  }

  /// As `parameters`, but makes each block just before its turn.
  template <class F>
  void parameters_block_by_block(F&& f) {
    parameters_before_blocks(f);
    for (std::size_t l = 0; l < config.num_layers(); ++l) {
      blocks.emplace_back(config, l);
      parameters_of_block(l, f);
    }
    parameters_after_blocks(f);
  }

  /// Call when all parameters have values.
  void finalize() { widest_ = detail::widest_rows(*this); }

  /// Registers a mapped file of weights (`load` does this): every pass checks that the file has not shrunk.
  void watch(const std::shared_ptr<const MappedFile>& file) {
    if (file && std::find(files_.begin(), files_.end(), file) == files_.end()) files_.push_back(file);
  }

  /// Whether it stands for a part of an image, a video or a sound.
  bool is_soft(Token token) const {
    return std::find(config.soft_tokens.begin(), config.soft_tokens.end(), token) != config.soft_tokens.end();
  }

  /// Bytes of Context::workspace for a pass over so many tokens.
  std::size_t workspace_bytes(std::size_t tokens, std::size_t tasks) const {
    return product_workspace<T, B>(tokens, tasks, widest_.integers, widest_.bf16);
  }

  /// How many of these texts, the first ones, one pass embeds: one, or some short ones. More tokens gain nothing.
  static std::size_t texts_at_once(std::span<const std::span<const Token>> texts) {
    constexpr std::size_t most_tokens = 256;
    std::size_t count = 0, tokens = 0;
    while (count < texts.size() && (count == 0 || tokens + texts[count].size() <= most_tokens)) {
      tokens += texts[count++].size();
    }
    return count;
  }

  /// Throws ErrorCode::argument for what `embed` refuses: `vectors` of `size` numbers for these texts.
  void check(std::span<const std::span<const Token>> texts, std::size_t vectors, std::size_t size) const {
    const auto refuse = [](const auto&... parts) { fail(ErrorCode::argument, "embed: ", parts...); };
    if (vectors != texts.size()) refuse(vectors, " vectors for ", texts.size(), " texts, expected as many");
    if (size == 0 || size > config.embedding_dim)
      refuse("vectors of ", size, " numbers, expected 1 to ", config.embedding_dim);
    for (std::size_t i = 0; i < texts.size(); ++i) {
      const auto refuse_text = [&](const auto&... parts) { refuse("text ", i + 1, " of ", texts.size(), parts...); };
      if (texts[i].empty()) refuse_text(" has no tokens, expected at least 1");
      if (texts[i].size() > config.max_position_embeddings) {
        refuse_text(" has ", texts[i].size(), " tokens, expected at most ", config.max_position_embeddings,
                    ", the model's max_position_embeddings");
      }
      for (const Token token : texts[i]) {
        if ((token < 0 || static_cast<std::size_t>(token) >= config.vocab_size) && !is_soft(token))
          refuse_text(" has token ", token, ", expected 0 to ", config.vocab_size - 1);
      }
    }
  }

  /// A text's vector, or its first `size` numbers (0: all), of length 1. Uses all hardware threads. Errors: as below.
  std::vector<float> embed(std::span<const Token> text, std::size_t size = 0) const {
    if (size == 0) size = config.embedding_dim;
    check(std::span(&text, 1), 1, size);
    std::vector<float> vector(size);
    embed(*shared_pool(), std::span(&text, 1), {vector.data(), 1, size, size});
    return vector;
  }

  /// The vectors of several texts: [texts, size]. Each is cut to its first `size` numbers, then made 1 long. It has the
  /// same bits whatever the other texts are, on any number of threads. Weights are read once for several short texts.
  /// Errors: ErrorCode::argument for an impossible size, an empty text, one of more than max_position_embeddings
  /// tokens, or a token outside the vocabulary, before anything is computed; system if there is no memory; file.
  void embed(Executor& threads, std::span<const std::span<const Token>> texts, Rows vectors) const {
    embed(threads, texts, vectors, [](const char*, std::size_t, Rows) {});
  }

  /// As above. Calls observe(name, layer, values) for each pass: its texts' tokens one after another, as "embedding",
  /// "per_layer_input" and "layer" of each layer, then "norm".
  template <class Observer>
  void embed(Executor& threads, std::span<const std::span<const Token>> texts, Rows vectors,
             const Observer& observe) const {
    check(texts, vectors.rows, vectors.cols);
    for (const auto& file : files_) file->check_size();
    for (std::size_t i = 0, count = 0; i < texts.size(); i += count) {
      count = texts_at_once(texts.subspan(i));
      try {
        detail::EncoderPass pass(*this, threads, texts.subspan(i, count), observe);
        pass(vectors.slice(i, count));
      } catch (const std::bad_alloc&) {
        fail(ErrorCode::system, "embed: no memory for text ", i + 1, " of ", texts.size(), ", which has ",
             texts[i].size(), " tokens");
      }
    }
  }

 private:
  struct WithoutBlocks {};
  Encoder(const Config& c, WithoutBlocks /*blocks*/) : config(c) {
    validate(config, "the encoder's configuration");
    const std::size_t d = config.hidden_size;
    embedding = Matrix<T>(config.vocab_size, d);
    per_layer_projection =
        PerLayerProjection<T, B>(d, config.num_layers(), config.hidden_size_per_layer_input, config.rms_norm_eps);
    final_norm = RmsNorm<B>(d, config.rms_norm_eps);
    embedding_projection = Linear<T, B>(config.embedding_dim, d);
  }

  template <class F>
  void parameters_before_blocks(F& f) {
    f(Parameter::token_embedding, std::size_t{0}, embedding);
    f(Parameter::ple_context_projection, std::size_t{0}, per_layer_projection.context_projection.weight);
    f(Parameter::ple_context_norm, std::size_t{0}, per_layer_projection.context_norm.weight);
  }
  template <class F>
  void parameters_of_block(std::size_t l, F& f) {
    blocks[l].parameters([&](Parameter parameter, auto& values) { f(parameter, l, values); });
  }
  template <class F>
  void parameters_after_blocks(F& f) {
    f(Parameter::final_norm, std::size_t{0}, final_norm.weight);
    f(Parameter::embedding_projection, std::size_t{0}, embedding_projection.weight);
  }

  std::vector<std::shared_ptr<const MappedFile>> files_;
  detail::WidestRows widest_;
};

}  // namespace ple::inline PLE_ABI
