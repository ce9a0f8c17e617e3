// SPDX-License-Identifier: Apache-2.0
// Control tokens, which steer a model. Untrusted text must never become one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/token.h"

namespace ple::inline PLE_ABI {

/// Whether a name is a Gemma control token's. A file's types do not tell: some call <eos> normal or user-defined.
inline bool is_control_name(std::string_view piece) {
  if (piece.size() < 4 || piece.front() != '<' || piece.back() != '>') return false;
  // Gemma 4's: <|turn>, <turn|>, <|think|>. No other piece of its vocabulary looks like that.
  if (piece[1] == '|' || piece[piece.size() - 2] == '|') return true;
  // Those of all Gemmas, and the turns and media of Gemma 3n and older ones.
  for (const std::string_view name :
       {"<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>",
        "<end_of_image>", "<image_soft_token>", "<start_of_audio>", "<end_of_audio>", "<audio_soft_token>"}) {
    if (piece == name) return true;
  }
  return false;
}

class ControlTokens {
 public:
  void add(Token id) {
    const auto row = static_cast<std::size_t>(id);
    if (row >= is_control_.size()) is_control_.resize(row + 1);
    is_control_[row] = true;
  }
  bool contains(Token id) const {
    return static_cast<std::size_t>(id) < is_control_.size() && is_control_[static_cast<std::size_t>(id)];
  }

 private:
  std::vector<bool> is_control_;  // by id
};

/// The tokens that encoding may produce.
struct AllowedTokens {
  const ControlTokens* forbidden = nullptr;  ///< null: every token is allowed
  std::span<const Token> also_forbidden = {};
  bool unk = true;  ///< whether unk may stand for a character that has no piece

  bool contains(Token id) const {
    if (forbidden == nullptr) return true;
    return !forbidden->contains(id) &&
           std::find(also_forbidden.begin(), also_forbidden.end(), id) == also_forbidden.end();
  }
};

}  // namespace ple::inline PLE_ABI
