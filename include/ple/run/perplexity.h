// SPDX-License-Identifier: Apache-2.0
// How well a model predicts a long text, window by window.
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/executor.h"
#include "ple/core/token.h"
#include "ple/model/language_model.h"
#include "ple/run/evaluation.h"
#include "ple/run/session.h"

namespace ple::inline PLE_ABI {

/// Which tokens of a text are scored, and after how many others. The defaults are llama.cpp's `perplexity`.
struct PerplexityOptions {
  std::size_t context = 512;  ///< tokens of a window; each begins with an empty cache
  std::size_t stride = 0;     ///< from one window to the next, whose last `stride` tokens are scored. 0: windows follow
                              ///< each other, and tokens are scored after the first half and one more
  std::optional<Token> bos = {};  ///< takes the place of each window's first token
};

/// tokens[begin, end) of a text, of which [first, end) are scored.
struct ScoredWindow {
  std::size_t begin, first, end;
};

/// The windows of a text; what is left at its end and fills no window is not scored. Errors: ErrorCode::argument for a
/// context of less than 4, a stride of more than context - 1, or a text shorter than one window.
inline std::vector<ScoredWindow> scored_windows(std::size_t tokens, const PerplexityOptions& options) {
  const std::size_t context = options.context, stride = options.stride > 0 ? options.stride : context;
  if (context < 4) fail(ErrorCode::argument, "perplexity: a context of ", context, " tokens, expected 4 or more");
  if (options.stride >= context) {
    fail(ErrorCode::argument, "perplexity: a stride of ", stride, ", expected less than the context of ", context);
  }
  if (tokens < context) {
    fail(ErrorCode::argument, "perplexity: the text has ", tokens, " tokens, fewer than the context of ", context);
  }
  const std::size_t scored = options.stride > 0 ? stride : context - context / 2 - 1;
  std::vector<ScoredWindow> windows;
  for (std::size_t begin = 0; tokens - begin >= context; begin += stride) {
    windows.push_back({begin, begin + context - scored, begin + context});
    if (tokens - begin < stride) break;
  }
  return windows;
}

/// -log P(token), in nats, of the logits before it; *log_sum, if wanted, is their log_sum_exp.
inline double token_loss(std::span<const float> logits, Token token, double* log_sum = nullptr) {
  const double log_of_sum = log_sum_exp(logits);
  if (log_sum) *log_sum = log_of_sum;
  return log_of_sum - static_cast<double>(logits[static_cast<std::size_t>(token)]);
}

/// Reads windows of a text and calls each(i, logits) with the logits that predict tokens[i], for every scored token;
/// several at once, on the executor's threads. After each window, window_done(w) on the calling thread; false cancels.
/// Errors: ErrorCode::argument for a token outside the vocabulary or a window longer than the model's positions;
/// cancelled; what computing throws.
template <class Each, class WindowDone>
void predict_windows(const LanguageModel& model, std::span<const Token> tokens, std::span<const ScoredWindow> windows,
                     SessionOptions options, std::optional<Token> bos, Executor& executor, Each&& each,
                     WindowDone&& window_done) {
  constexpr std::size_t most_logits = 64;  // rows: 64 MiB for a vocabulary of 262144
  std::size_t longest = 0;
  for (const ScoredWindow& window : windows) longest = (std::max)(longest, window.end - window.begin);
  options.context = longest;
  options.executor = &executor;
  Session session(model, options);
  for (std::size_t w = 0; w < windows.size(); ++w) {
    const std::size_t begin = windows[w].begin, first = windows[w].first, end = windows[w].end;
    std::vector<Token> read(tokens.begin() + static_cast<std::ptrdiff_t>(begin),
                            tokens.begin() + static_cast<std::ptrdiff_t>(end) - 1);
    if (bos) read.front() = *bos;
    const std::span<const Token> all(read);
    const std::size_t unscored = first - begin - 1;  // the logits that follow these are not asked for
    session.reset();
    if (unscored > 0) session.read(all.first(unscored));
    for (std::size_t done = unscored; done < all.size(); done += most_logits) {
      const Rows logits = session.read_logits(all.subspan(done, (std::min)(most_logits, all.size() - done)));
      auto task = [&](std::size_t t) {
        each(begin + done + t + 1, std::span<const float>(logits.row(t), logits.cols));
      };
      executor.run(logits.rows, task);
    }
    if (!window_done(w)) fail(ErrorCode::cancelled, "perplexity: cancelled after ", w + 1, " windows");
  }
}

}  // namespace ple::inline PLE_ABI
