// SPDX-License-Identifier: Apache-2.0
// What a session asks of a model, whatever the model's types are: one virtual call per forward pass.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/executor.h"
#include "ple/core/os.h"
#include "ple/core/token.h"
#include "ple/dtype/traits.h"
#include "ple/table/row_store.h"
#include "ple/tensor/rows.h"

namespace ple::inline PLE_ABI {

/// More tokens than this gain nothing by being computed together, and what each takes in memory adds up.
inline constexpr std::size_t most_tokens_at_once = std::size_t{1} << 16;

/// Of a session, and of the state that a model keeps for it.
struct SessionOptions {
  std::size_t context = 0;            ///< most positions; 0: 4096, or the model's limit if that is less
  std::size_t chunk = 128;            ///< most tokens that are computed at once, up to most_tokens_at_once
  std::size_t threads = 0;            ///< of the pool that runs it; 0: one for every hardware thread, or 1 for a state
  Dtype kv_cache_dtype = Dtype::f32;  ///< f32, bf16, f16 or q8_0: keys and values are rounded to it as they are written
  std::uint64_t kv_cache_limit = 0;   ///< most bytes that K and V may grow to, which the context decides; 0: any number
  Executor* executor = nullptr;       ///< runs the session instead of a pool; must outlive it. No matter to a state
  std::size_t keep = 0;               ///< positions before a sliding window that are kept, for truncate() to go back to

  std::size_t context_of(std::size_t max_position_embeddings) const {
    return context ? context : (std::min)(std::size_t{4096}, max_position_embeddings);
  }
  /// Those of an executor of so many threads.
  std::size_t tasks() const { return threads <= 1 ? 1 : 4 * threads; }
};
using StateOptions = SessionOptions;  ///< Old name; goes with the next version.

/// What a model remembers of one text: K and V, the position, and room to compute in.
struct ModelState {
  SessionOptions options;
  std::size_t position = 0;    ///< of the next token; setting it to 0 forgets the text
  const void* type = nullptr;  ///< the same address in all states of one type: how a model knows its own without RTTI
  ModelState() = default;
  explicit ModelState(const SessionOptions& o, const void* type_of_state = nullptr) : options(o), type(type_of_state) {}
  virtual ~ModelState() = default;
  virtual std::size_t kv_cache_bytes() const = 0;

  /// For a session that is saved and goes on elsewhere. Errors: ErrorCode::not_supported where a model cannot.
  /// Puts it where it was after it had read `tokens`, but for K and V, which are written through for_each_cached.
  virtual void resume(std::span<const Token> /*tokens*/) { cannot_be_saved(); }
  /// The K and V that later tokens still look at, as bytes: calls f with runs of them, in an order that depends on the
  /// model and the position alone.
  virtual void for_each_cached(const std::function<void(std::span<std::byte>)>& /*f*/) { cannot_be_saved(); }
  /// The type these bytes are values of: "f32".
  virtual std::string_view cache_type() const { cannot_be_saved(); }

  /// The earliest position that truncate() can go back to. A model that cannot go back says where it is.
  virtual std::size_t truncatable_to() const { return rewindable_from(); }
  virtual std::size_t rewindable_from() const { return position; }  ///< Old name; goes with the next version.
  /// Puts it back where it was after it had read `tokens`, the first truncatable_to() or more of those it has read.
  virtual void truncate(std::span<const Token> tokens) { rewind(tokens); }
  virtual void rewind(std::span<const Token> /*tokens*/) {  ///< Old name; goes with the next version.
    fail(ErrorCode::not_supported, "this model's sessions cannot go back");
  }

 private:
  [[noreturn]] static void cannot_be_saved() {
    fail(ErrorCode::not_supported, "this model's sessions cannot be saved");
  }
};

/// A model is never changed by computing: any number of states, each on a thread of its own, may use it at once.
class LanguageModel {
 public:
  virtual ~LanguageModel() = default;

  virtual std::size_t vocab_size() const = 0;
  virtual std::size_t max_position_embeddings() const = 0;

  /// It reads tokens 0 to token_limit() - 1, but for those that check_has_row() throws ErrorCode::argument for.
  virtual std::size_t token_limit() const { return vocab_size(); }
  virtual void check_has_row(Token /*token*/) const {}

  /// Errors: ErrorCode::argument, which `who`... say, for a token that it cannot read.
  template <class... Who>
  void check_token(Token token, const Who&... who) const {
    if (token < 0 || static_cast<std::size_t>(token) >= token_limit()) {
      fail(ErrorCode::argument, who..., ": token ", token, ", expected 0 to ", token_limit() - 1);
    }
    check_has_row(token);
  }

  /// A state must be used with the model that made it.
  virtual std::unique_ptr<ModelState> make_state(const SessionOptions& options) const = 0;

  /// Another state that has read the same. Errors: those of make_state; ErrorCode::argument if another model made it.
  virtual std::unique_ptr<ModelState> copy_state(ModelState& /*state*/) const {
    fail(ErrorCode::not_supported, "this model's sessions cannot be copied");
  }

  /// Reads tokens, at most options.chunk, and writes the logits of the last logits.rows of them: [rows, vocab_size].
  /// Rows may be 0. Where a token is soft_token the next row of `soft`, [number of them, d], is its embedding, as the
  /// first layer gets it. Errors, and then the state can go on from the position it is still at, and nothing was
  /// written to `logits`: ErrorCode::argument; ErrorCode::file if a file can no longer be read.
  virtual void forward(ModelState& state, Executor& executor, std::span<const Token> tokens, Rows logits,
                       Rows soft = {}) const = 0;

  /// Reads a token of each of several texts, and writes the logits that follow: [texts, vocab_size]. A model may read
  /// its weights once for all of them; results are those of `forward`, bit for bit. `workspace` is a state in which it
  /// is computed, with a chunk of at least as many; its own text is not touched. Errors: as above, and then no text has
  /// read its token. Only this default, which reads one text after another, leaves those before the one that failed a
  /// token further, with their logits written.
  virtual void forward_each(ModelState& workspace, Executor& executor, std::span<ModelState* const> states,
                            std::span<const Token> tokens, Rows logits) const {
    static_cast<void>(workspace);
    for (std::size_t i = 0; i < states.size(); ++i) {
      forward(*states[i], executor, tokens.subspan(i, 1), logits.slice(i, 1));
    }
  }

  /// A hint that the state will read these tokens next: what has to come from a file is asked for now. Never waits,
  /// never throws.
  virtual void prefetch(ModelState& state, std::span<const Token> tokens) const {
    static_cast<void>(state), static_cast<void>(tokens);
  }
  /// Old name; goes with the next version.
  void will_read(ModelState& state, std::span<const Token> tokens) const { prefetch(state, tokens); }

  /// What its PLE table has done since it was opened.
  virtual TableCounters table_counters() const { return {}; }

  /// The files that its weights lie in, which nothing should overwrite.
  virtual std::vector<FileIdentity> files() const { return {}; }

  /// Width of an embedding.
  virtual std::size_t hidden_size() const = 0;

  /// Different for models that compute different things, as far as model/identity.h can tell. Reads a few weights.
  /// Errors: ErrorCode::file if a file can no longer be read; not_supported where a model has none.
  virtual std::uint64_t identity() const { fail(ErrorCode::not_supported, "this model has no identity"); }
};

}  // namespace ple::inline PLE_ABI
