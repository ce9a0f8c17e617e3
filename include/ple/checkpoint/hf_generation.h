// SPDX-License-Identifier: Apache-2.0
// What the files of a Hugging Face folder recommend for generating text, as transformers reads it.
#pragma once

#include <cmath>
#include <cstddef>
#include <limits>
#include <string_view>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/json.h"
#include "ple/core/token.h"
#include "ple/formats/json_field.h"
#include "ple/model/sampling_options.h"

namespace ple::inline PLE_ABI {

/// Field eos_token_id of generation_config.json or config.json: a number or a list of them. Errors: ErrorCode::config.
inline std::vector<Token> hf_stop_tokens(const JsonField& fields, std::size_t vocab_size) {
  std::vector<Token> tokens;
  const Json* ids = fields.find("eos_token_id");
  if (ids == nullptr) return tokens;
  const auto add = [&](const Json& id) {
    const auto token = id.whole();
    if (!token || *token >= vocab_size) fields.wrong("eos_token_id", id, "a token from 0 to ", vocab_size - 1);
    tokens.push_back(static_cast<Token>(*token));
  };
  if (ids->is_array()) {
    for (const Json& id : ids->items()) add(id);
  } else {
    add(*ids);
  }
  return tokens;
}

/// What generation_config.json recommends. repetition_penalty, no_repeat_ngram_size and suppress_tokens apply to greedy
/// decoding too; temperature, top_k, top_p and min_p only with do_sample. As in transformers, top_p >= 1 and
/// no_repeat_ngram_size < 1 are off, and suppressed tokens outside the vocabulary change nothing. As in other engines,
/// top_k < 1 is off. Temperature 0 is greedy. Other fields (beams, biases, forced or forbidden words and lengths,
/// typical_p and other cuts) are not read. Errors: ErrorCode::config for invalid values.
inline SamplingOptions hf_sampling(const JsonField& fields, std::size_t vocab_size) {
  // No float is larger, so this is no limit.
  constexpr double largest = (std::numeric_limits<float>::max)();
  const auto number = [&](std::string_view name, double otherwise, double least, double most, const char* expected) {
    const double value = fields.number(name, otherwise);
    if (!(value >= least && value <= most)) fields.wrong(name, *fields.find(name), expected);
    return static_cast<float>(value);
  };
  const auto count = [&](std::string_view name, std::size_t otherwise) {
    const Json* found = fields.find(name);
    if (found != nullptr && found->is_number() && found->number() < 1 && std::trunc(found->number()) == found->number())
      return std::size_t{0};
    return fields.count(name, otherwise);
  };
  SamplingOptions sampling;
  const double least = static_cast<double>((std::numeric_limits<float>::min)());
  sampling.repetition_penalty = number("repetition_penalty", 1, least, largest, "more than 0");
  sampling.no_repeat_ngram_size = count("no_repeat_ngram_size", 0);
  if (const Json* suppressed = fields.find("suppress_tokens")) {
    if (!suppressed->is_array()) fields.wrong("suppress_tokens", *suppressed, "a list of tokens");
    for (const Json& token : suppressed->items()) {
      const auto id = token.whole();
      if (!token.is_number() || (token.is_real() && !id)) fields.wrong("suppress_tokens", token, "tokens");
      if (id && *id < vocab_size) sampling.suppress_tokens.push_back(static_cast<Token>(*id));
    }
  }
  if (!fields.boolean("do_sample", false)) return sampling;
  sampling.temperature = number("temperature", 1, 0, largest, "0 or more");
  sampling.top_k = count("top_k", 50);  // transformers' default
  sampling.top_p = number("top_p", 1, 0, largest, "0 to 1");
  if (sampling.top_p > 1) sampling.top_p = 1;
  sampling.min_p = number("min_p", 0, 0, 1, "0 to 1");
  return sampling;
}

}  // namespace ple::inline PLE_ABI
