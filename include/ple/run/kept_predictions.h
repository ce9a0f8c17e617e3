// SPDX-License-Identifier: Apache-2.0
// A model's predictions along a text in a file, to compare other models with. Of every prediction the likeliest tokens
// are kept: of 262144 tokens a hundredth or so. Little-endian, in this order:
//   KeptHeader
//   i32 tokens [tokens]
//   for each scored token:  f32 loss, u32 kept, i32 token [kept] (ascending), f32 log P [kept]
//   u64 checksum (core/checksum.h) of everything before it
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "ple/core/checked_writer.h"
#include "ple/core/checksum.h"
#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/mapped_file.h"
#include "ple/core/token.h"
#include "ple/run/perplexity.h"

namespace ple::inline PLE_ABI {

/// The likeliest tokens that may follow a text, ascending, and the logarithms of their probabilities.
struct KeptPrediction {
  float loss = 0;  ///< -log P of the token that did follow
  std::vector<Token> tokens;
  std::vector<float> log_p;
};

/// How far a model's prediction is from a kept one.
struct KeptDivergence {
  double kl = 0;          ///< KL(kept || model) in nats; the tokens that were not kept count as one: never too much
  double difference = 0;  ///< mean of |log P - log Q| over the tokens that were kept
  double kept = 0;        ///< sum of their P
  bool same_top = false;  ///< whether both have the same likeliest token
};

inline std::size_t likeliest(std::span<const float> scores) {
  return static_cast<std::size_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
}

/// Keeps the likeliest tokens until those left out have less than 1e-3 together, or 8192 are kept. All whose P falls
/// into the same factor of sqrt(2) are kept or left out together, so that no order of equal ones matters. Errors:
/// ErrorCode::argument for logits that are NaN.
inline KeptPrediction keep_prediction(std::span<const float> logits, Token next) {
  constexpr double left_out = 1e-3;
  constexpr std::size_t most = 8192, bins = 128;
  double log_sum = 0;
  KeptPrediction kept;
  kept.loss = static_cast<float>(token_loss(logits, next, &log_sum));
  const auto log_p = [&](std::size_t i) { return static_cast<float>(static_cast<double>(logits[i]) - log_sum); };
  const auto bin = [&](float log) {
    const float at = -log * 2.8853901f;  // 2 / ln 2: bins of a factor of sqrt(2)
    return at < static_cast<float>(bins) ? static_cast<std::size_t>((std::max)(at, 0.0f)) : bins;
  };
  std::array<std::size_t, bins + 1> counts{};
  std::array<double, bins + 1> sums{};
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const float log = log_p(i);
    const std::size_t b = bin(log);
    if (b == bins) continue;
    ++counts[b];
    sums[b] += static_cast<double>(std::exp(log));
  }
  std::size_t end = 0, count = 0;
  double sum = 0;
  while (end < bins && sum < 1 - left_out && (count == 0 || count + counts[end] <= most)) {
    count += counts[end];
    sum += sums[end++];
  }
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const float log = log_p(i);
    if (bin(log) >= end) continue;
    kept.tokens.push_back(static_cast<Token>(i));
    kept.log_p.push_back(log);
  }
  if (kept.tokens.empty()) fail(ErrorCode::argument, "predictions: the logits are no numbers: ", logits[0]);
  return kept;
}

/// Errors: none; `logits` are of the vocabulary that the tokens are of.
inline KeptDivergence divergence(std::span<const Token> tokens, std::span<const float> log_p,
                                 std::span<const float> logits, double log_sum) {
  KeptDivergence d;
  double model_kept = 0;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const double log = static_cast<double>(log_p[i]), p = std::exp(log);
    const double log_q = static_cast<double>(logits[static_cast<std::size_t>(tokens[i])]) - log_sum;
    d.kl += p * (log - log_q);
    d.difference += std::fabs(log - log_q);
    d.kept += p;
    model_kept += std::exp(log_q);
  }
  const double rest = 1 - d.kept, model_rest = 1 - model_kept;
  if (rest > 0 && model_rest > 0) d.kl += rest * std::log(rest / model_rest);
  d.difference /= static_cast<double>(tokens.size());
  d.same_top = static_cast<std::size_t>(tokens[likeliest(log_p)]) == likeliest(logits);
  return d;
}

struct KeptHeader {
  std::array<char, 8> magic = {'p', 'l', 'e', ' ', 'p', 'r', 'd', '1'};
  std::uint64_t vocab_size = 0;
  std::uint64_t tokens = 0;   ///< of the text
  std::uint64_t context = 0;  ///< PerplexityOptions
  std::uint64_t stride = 0;
  std::uint64_t scored = 0;
};
static_assert(sizeof(KeptHeader) == 48);

/// Writes such a file; it has its name once finish() has read it back.
class KeptPredictionsWriter {
 public:
  /// Errors: those of CheckedWriter.
  KeptPredictionsWriter(const std::filesystem::path& path, std::span<const FileIdentity> inputs,
                        const KeptHeader& header, std::span<const Token> tokens)
      : writer_(path, inputs) {
    write(std::as_bytes(std::span(&header, 1)));
    write(std::as_bytes(tokens));
  }
  void write(const KeptPrediction& kept) {
    const auto count = static_cast<std::uint32_t>(kept.tokens.size());
    write(std::as_bytes(std::span(&kept.loss, 1)));
    write(std::as_bytes(std::span(&count, 1)));
    write(std::as_bytes(std::span(kept.tokens)));
    write(std::as_bytes(std::span(kept.log_p)));
  }
  void finish(const WriteProgress& progress = {}) {
    const std::uint64_t sum = checksum_.value();
    writer_.write(&sum, sizeof sum);
    size_ = writer_.size();
    writer_.finish(progress);
  }
  std::uint64_t size() const { return size_; }  ///< of the file, once finished

 private:
  void write(std::span<const std::byte> bytes) {
    writer_.write(bytes.data(), bytes.size());
    checksum_.add(bytes);
  }

  CheckedWriter writer_;
  Checksum checksum_;
  std::uint64_t size_ = 0;
};

/// Such a file, mapped. Opening reads all of it once, and checks it.
class KeptPredictions {
 public:
  /// Errors: ErrorCode::file; malformed for a file that is no such file or damaged.
  explicit KeptPredictions(const std::filesystem::path& path) : file_(MappedFile::open(path)) {
    const auto bytes = file_->bytes();
    if (bytes.size() < sizeof header_ + sizeof(std::uint64_t)) {
      refuse("has ", bytes.size(), " bytes: it holds no predictions");
    }
    std::memcpy(&header_, bytes.data(), sizeof header_);
    if (header_.magic != KeptHeader{}.magic) refuse("holds no predictions, or of another version");
    end_ = bytes.size() - sizeof(std::uint64_t);
    std::uint64_t stored = 0;
    std::memcpy(&stored, bytes.data() + end_, sizeof stored);
    Checksum sum;
    sum.add(bytes.first(end_));
    if (sum.value() != stored) {
      refuse("its checksum is ", sum.value(), ", expected ", stored, ": the file is damaged");
    }
    std::size_t at = sizeof header_;
    if (header_.tokens > (end_ - at) / sizeof(Token)) {
      refuse("has ", header_.tokens, " tokens, more than its ", bytes.size(), " bytes hold");
    }
    tokens_ = view<Token>(at, static_cast<std::size_t>(header_.tokens));
    at += tokens_.size_bytes();
    if (header_.scored > (end_ - at) / 8) {
      refuse("has ", header_.scored, " predictions, more than its ", bytes.size(), " bytes hold");
    }
    for (std::uint64_t i = 0; i < header_.scored; ++i) at = check(i, at);
    if (at != end_) refuse("has ", end_ - at, " bytes after its last prediction");
  }

  const KeptHeader& header() const { return header_; }
  std::span<const Token> tokens() const { return tokens_; }  ///< of the text
  std::size_t size() const { return at_.size(); }
  float loss(std::size_t i) const { return view<float>(at_[i], 1)[0]; }
  /// Compares prediction i, below size(), with a model's logits, [vocab_size], whose log_sum token_loss gives. Errors:
  /// ErrorCode::file if the file has shrunk.
  KeptDivergence compare(std::size_t i, std::span<const float> logits, double log_sum) const {
    file_->check_size();
    const std::uint32_t count = view<std::uint32_t>(at_[i] + 4, 1)[0];
    return divergence(view<Token>(at_[i] + 8, count), view<float>(at_[i] + 8 + 4 * std::size_t{count}, count), logits,
                      log_sum);
  }

 private:
  template <class... Parts>
  [[noreturn]] void refuse(const Parts&... parts) const {
    fail(ErrorCode::malformed, file_->file()->name(), ": ", parts...);
  }

  /// Numbers of 4 bytes, all at multiples of 4.
  template <class T>
  std::span<const T> view(std::size_t at, std::size_t count) const {
    return {reinterpret_cast<const T*>(file_->bytes().data() + at), count};
  }

  /// Checks the prediction at a place and returns where the next one begins.
  std::size_t check(std::uint64_t i, std::size_t at) {
    if (end_ - at < 8) refuse("ends in prediction ", i);
    const std::uint32_t count = view<std::uint32_t>(at + 4, 1)[0];
    if (count == 0 || count > header_.vocab_size || count > (end_ - at - 8) / 8) {
      refuse("prediction ", i, " keeps ", count, " tokens, expected 1 to ",
             (std::min<std::uint64_t>)(header_.vocab_size, (end_ - at - 8) / 8));
    }
    std::int64_t last = -1;
    for (const Token token : view<Token>(at + 8, count)) {
      if (token <= last || static_cast<std::uint64_t>(token) >= header_.vocab_size) {
        refuse("prediction ", i, ": token ", token, ", expected ", last + 1, " to ", header_.vocab_size - 1);
      }
      last = token;
    }
    for (const float log_p : view<float>(at + 8 + 4 * std::size_t{count}, count)) {
      if (!(log_p < 1e-3f)) refuse("prediction ", i, ": a probability of ", std::exp(log_p), ", expected 0 to 1");
    }
    at_.push_back(at);
    return at + 8 + 8 * std::size_t{count};
  }

  std::shared_ptr<const MappedFile> file_;
  KeptHeader header_;
  std::size_t end_ = 0;  // of what the checksum covers
  std::span<const Token> tokens_;
  std::vector<std::size_t> at_;  // where each prediction begins
};

}  // namespace ple::inline PLE_ABI
