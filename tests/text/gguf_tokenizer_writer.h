// SPDX-License-Identifier: Apache-2.0
// A tokenizer.json as keys of a GGUF file.
#pragma once

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "../formats/gguf_writer.h"
#include "ple/core/token.h"

namespace ple::testing {

inline bool is_byte(const std::string& piece) { return piece.size() == 6 && piece.starts_with("<0x"); }

/// The keys that llama.cpp's converter makes of a tokenizer.json of Gemma 4's kind.
inline void add_tokenizer(GgufWriter& gguf, const nlohmann::json& file) {
  constexpr std::int32_t normal = 1, control = 3, user_defined = 4, byte = 6;
  std::map<Token, std::string> pieces;
  for (const auto& [piece, id] : file["model"]["vocab"].items()) pieces[id.get<Token>()] = piece;
  std::map<Token, std::int32_t> types;
  for (const nlohmann::json& added : file["added_tokens"]) {
    pieces[added["id"].get<Token>()] = added["content"];
    types[added["id"].get<Token>()] = added["special"] ? control : user_defined;
  }
  std::vector<std::string> tokens, merges;
  std::vector<std::int32_t> token_types;
  for (const auto& [id, piece] : pieces) {
    REQUIRE(static_cast<std::size_t>(id) == tokens.size());
    tokens.push_back(piece);
    token_types.push_back(types.count(id) ? types[id] : is_byte(piece) ? byte : normal);
    // It calls some control tokens something else.
    if (piece == "<|channel>" || piece == "<channel|>") token_types.back() = user_defined;
    if (piece == "<|turn>" || piece == "<|think|>") token_types.back() = normal;
  }
  for (const nlohmann::json& merge : file["model"]["merges"])
    merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  gguf.text("tokenizer.ggml.model", "gemma4").texts("tokenizer.ggml.tokens", tokens);
  gguf.numbers("tokenizer.ggml.token_type", GgufWriter::i32, token_types);
  gguf.numbers("tokenizer.ggml.scores", GgufWriter::float32, std::vector<float>(tokens.size(), -1000));
  gguf.texts("tokenizer.ggml.merges", merges);
  gguf.count("tokenizer.ggml.bos_token_id", 2).count("tokenizer.ggml.eos_token_id", 1);
  gguf.count("tokenizer.ggml.unknown_token_id", 3).count("tokenizer.ggml.padding_token_id", 0);
  gguf.flag("tokenizer.ggml.add_space_prefix", false).flag("tokenizer.ggml.add_bos_token", true);
}

}  // namespace ple::testing
