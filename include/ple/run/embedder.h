// SPDX-License-Identifier: Apache-2.0
// Texts to vectors, with an encoder such as EmbeddingGemma 2.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ple/checkpoint/sentence_transformers.h"
#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/executor.h"
#include "ple/core/shared_pool.h"
#include "ple/core/token.h"
#include "ple/model/encoder.h"
#include "ple/tensor/rows.h"
#include "ple/text/tokenizer.h"

namespace ple::inline PLE_ABI {

struct EmbedderOptions {
  std::size_t size = 0;          ///< numbers of a vector, the first ones; 0: all
  std::size_t threads = 0;       ///< of the pool; 0: one per hardware thread
  Executor* executor = nullptr;  ///< computes instead of a pool; must outlive the embedder
};

/// Turns texts into vectors of length 1: the dot product of a query's and a document's says how well they match.
/// EmbeddingGemma 2 was trained so that the first 512, 256 and 128 of its 768 numbers are good vectors, too. Any number
/// of threads may use an embedder. The model must outlive it.
template <class Model>
class Embedder {
 public:
  /// Called with the texts embedded so far and their total number; false cancels.
  using Progress = std::function<bool(std::size_t done, std::size_t total)>;

  /// `folder`: an HfFolder. Errors: those of open_tokenizer, embedding_prompts, check_mean_pooling; ErrorCode::argument
  /// for an impossible size.
  template <class Folder>
  Embedder(const Model& model, const Folder& folder, const EmbedderOptions& options = {})
      : model_(&model),
        tokenizer_(open_tokenizer(folder)),
        prompts_(embedding_prompts(folder.folder())),
        size_(options.size ? options.size : model.config.embedding_dim),
        executor_(options.executor) {
    check_mean_pooling(folder.folder());
    model.check({}, 0, size_);
    if (executor_) return;
    pool_ = shared_pool(options.threads);
    executor_ = pool_.get();
  }
  template <class Folder>
  Embedder(const Model&& model, const Folder&, const EmbedderOptions& = {}) = delete;  // the model must outlive it

  std::size_t size() const { return size_; }
  const EmbeddingPrompts& prompts() const { return prompts_; }

  /// The vector of a question, or of a text that may answer one. Errors, also of those below: Encoder::embed's.
  std::vector<float> query(std::string_view text) const { return embed(prompts_.query + std::string(text)); }
  std::vector<float> document(std::string_view text) const { return embed(prompts_.document + std::string(text)); }

  /// The vector of a text as it is: begin it with the prompt of what the vector is for, such as
  /// "task: clustering | query: ".
  std::vector<float> embed(std::string_view text) const {
    std::vector<float> vector(size_);
    const std::vector<Token> tokens = tokenizer_.encode(text);
    const std::span<const Token> texts[] = {tokens};
    model_->embed(*executor_, texts, {vector.data(), 1, size_, size_});
    return vector;
  }

  /// The vectors of many documents: [texts, size()]. Errors: also ErrorCode::cancelled. All texts are checked before
  /// the first is embedded.
  void documents(std::span<const std::string> texts, Rows vectors, const Progress& progress = {}) const {
    std::vector<std::vector<Token>> tokens;
    for (const std::string& text : texts) tokens.push_back(tokenizer_.encode(prompts_.document + text));
    const std::vector<std::span<const Token>> all(tokens.begin(), tokens.end());
    model_->check(all, vectors.rows, vectors.cols);
    for (std::size_t done = 0; done < all.size();) {
      const std::size_t count = model_->texts_at_once(std::span(all).subspan(done));
      model_->embed(*executor_, std::span(all).subspan(done, count), vectors.slice(done, count));
      done += count;
      if (progress && !progress(done, all.size()))
        fail(ErrorCode::cancelled, "embed: cancelled after ", done, " of ", all.size(), " texts");
    }
  }

 private:
  const Model* model_;
  Tokenizer tokenizer_;
  EmbeddingPrompts prompts_;
  std::size_t size_;
  std::shared_ptr<Executor> pool_;
  Executor* executor_;
};

}  // namespace ple::inline PLE_ABI
