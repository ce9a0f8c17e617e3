// SPDX-License-Identifier: Apache-2.0
// Translates the components of a tokenizer.json into ple's.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/token.h"
#include "ple/text/added_tokens.h"
#include "ple/text/bpe.h"
#include "ple/text/pipeline.h"
#include "ple/text/tokenizer_json.h"
#include "ple/text/utf8.h"

namespace ple::inline PLE_ABI {

/// The parts of a Tokenizer, from any kind of file.
struct TokenizerParts {
  Bpe model;
  AddedTokens added;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  PieceDecoder decoder;
  std::vector<Token> prefix;  ///< put before an encoded text
  std::vector<Token> suffix;  ///< put after it
  /// Control tokens whose ids the file gives, besides those above, special added tokens, unk and those known by name.
  std::vector<Token> control;
};

namespace detail {

[[noreturn]] inline void component_not_supported(const JsonField& component, const std::string& what) {
  fail(ErrorCode::not_supported, component.where(), ": ", what, " is not supported");
}

inline void check_count(const JsonField& component, std::size_t count, std::string_view what) {
  if (count <= max_steps) return;
  fail(ErrorCode::not_supported, component.where(), " has ", count, " ", what, ", expected at most ", max_steps);
}

/// A pattern {"String": text}; regular expressions are refused.
inline std::string literal_pattern(const JsonField& component) {
  const JsonField pattern = component["pattern"];
  if (!pattern.has("String")) component_not_supported(pattern, "a pattern other than String");
  const std::string_view text = pattern["String"].text();
  if (text.empty()) component_not_supported(pattern, "an empty String");
  check_piece_size(text, pattern.where());
  return std::string(text);
}

/// The members of `list` if the component is a Sequence, else the component itself; nothing for null.
inline std::vector<JsonField> component_steps(const JsonField& parent, std::string_view key, std::string_view list) {
  if (!parent.has(key)) return {};
  const JsonField component = parent[key];
  if (component["type"].text() != "Sequence") return {component};
  std::vector<JsonField> steps = component[list].items();
  check_count(component, steps.size(), "steps");
  return steps;
}

inline void check_growth(const JsonField& file, std::string_view key, double growth) {
  if (growth <= max_growth) return;
  fail(ErrorCode::not_supported, file[key].where(), " may turn 1 byte into ", growth, ", expected at most ",
       max_growth);
}

inline Normalizer read_normalizer(const JsonField& file) {
  Normalizer normalizer;
  for (const JsonField& step : component_steps(file, "normalizer", "normalizers")) {
    const std::string_view type = step["type"].text();
    if (type == "Replace") {
      normalizer.steps.push_back({literal_pattern(step), std::string(step["content"].text())});
    } else if (type == "Prepend") {
      normalizer.steps.push_back({"", std::string(step["prepend"].text())});
    } else {
      component_not_supported(step, "normalizer " + std::string(type));
    }
  }
  check_growth(file, "normalizer", normalizer.growth());
  return normalizer;
}

inline SplitBehavior read_split_behavior(const JsonField& field) {
  const std::string_view name = field.text();
  if (name == "Removed") return SplitBehavior::removed;
  if (name == "Isolated") return SplitBehavior::isolated;
  if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
  if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
  if (name == "Contiguous") return SplitBehavior::contiguous;
  component_not_supported(field, "behavior " + std::string(name));
}

inline PreTokenizer read_pre_tokenizer(const JsonField& file) {
  PreTokenizer pre_tokenizer;
  for (const JsonField& step : component_steps(file, "pre_tokenizer", "pretokenizers")) {
    const std::string_view type = step["type"].text();
    if (type != "Split") component_not_supported(step, "pre-tokenizer " + std::string(type));
    pre_tokenizer.splits.push_back(
        {literal_pattern(step), read_split_behavior(step["behavior"]), step.boolean("invert", false)});
  }
  return pre_tokenizer;
}

inline PieceDecoder read_decoder(const JsonField& file) {
  PieceDecoder decoder;
  bool fused = false;
  const std::vector<JsonField> steps = component_steps(file, "decoder", "decoders");
  // Without a decoder the reference puts a space between pieces.
  if (!file.has("decoder")) decoder.separator = " ";
  for (const JsonField& step : steps) {
    const std::string_view type = step["type"].text();
    auto& list = fused ? decoder.on_whole_text : decoder.byte_fallback ? decoder.after_bytes : decoder.before_bytes;
    if (type == "Fuse") {
      fused = true;
    } else if (type == "ByteFallback" && !fused && !decoder.byte_fallback) {
      decoder.byte_fallback = true;
    } else if (type == "Replace" && !fused) {
      list.push_back({literal_pattern(step), std::string(step["content"].text()), 0});
    } else if (type == "Strip") {
      if (step["stop"].integer(max_token_id) != 0) component_not_supported(step, "Strip at the end of text");
      const auto count = static_cast<std::size_t>(step["start"].integer(max_token_id));
      const std::string_view character = step["content"].text();
      if (character.empty() || utf8_length(character) != character.size()) {
        fail(ErrorCode::malformed, step.where(), ".content is '", character, "', expected one character");
      }
      if (count > 0) list.push_back({std::string(character), "", count});
    } else {
      component_not_supported(step, "decoder " + std::string(type) + (fused ? " after Fuse" : " here"));
    }
  }
  check_growth(file, "decoder", decoder.growth());
  return decoder;
}

/// TemplateProcessing for one text: the special tokens before and after it.
inline void read_post_processor(const JsonField& file, TokenizerParts& parts) {
  if (!file.has("post_processor")) return;
  const JsonField component = file["post_processor"];
  const std::string_view type = component["type"].text();
  if (type != "TemplateProcessing") component_not_supported(component, "post-processor " + std::string(type));
  bool text_seen = false;
  const std::vector<JsonField> items = component["single"].items();
  check_count(component, items.size(), "parts");
  for (const JsonField& item : items) {
    if (item.has("Sequence")) {
      if (text_seen) component_not_supported(item, "a template that repeats the text");
      text_seen = true;
      continue;
    }
    const JsonField special = component["special_tokens"][item["SpecialToken"]["id"].text()];
    const std::vector<JsonField> ids = special["ids"].items();
    check_count(special, ids.size(), "ids");
    for (const JsonField& field : ids) {
      const auto id = static_cast<Token>(field.integer(max_token_id));
      if (parts.added.find(id) == nullptr && !parts.model.vocabulary().piece(id)) {
        fail(ErrorCode::malformed, field.where(), " is ", id, ", which no piece has");
      }
      (text_seen ? parts.suffix : parts.prefix).push_back(id);
    }
  }
  if (!text_seen) fail(ErrorCode::malformed, component.where(), ".single has no Sequence: the text has no place in it");
}

inline void read_added_tokens(const JsonField& file, const std::string& source, TokenizerParts& parts) {
  if (!file.has("added_tokens")) return;
  for (const JsonField& item : file["added_tokens"].items()) {
    AddedToken token;
    token.id = static_cast<Token>(item["id"].integer(max_token_id));
    token.content = item["content"].text();
    token.special = item.boolean("special", false);
    token.normalized = item.boolean("normalized", false);
    token.lstrip = item.boolean("lstrip", false);
    token.rstrip = item.boolean("rstrip", false);
    if (item.boolean("single_word", false)) component_not_supported(item, "single_word");
    const Vocabulary& pieces = parts.model.vocabulary();
    const auto known = pieces.find(token.content);
    if (known && *known != token.id) {
      fail(ErrorCode::malformed, item.where(), ": '", token.content, "' has id ", token.id, ", but ", *known,
           " in model.vocab");
    }
    if (const auto other = pieces.piece(token.id); other && *other != token.content) {
      fail(ErrorCode::malformed, item.where(), ": id ", token.id, " is '", token.content, "', but '", *other,
           "' in model.vocab");
    }
    const std::string normalized = parts.normalizer(token.content);
    parts.added.add(std::move(token), normalized, source);
  }
}

inline Bpe read_model(TokenizerJson json, const JsonField& model, const std::string& source) {
  const std::string_view type = model["type"].text();
  if (type != "BPE") component_not_supported(model, "model " + std::string(type));
  if (model.has("dropout") && !(model["dropout"].value().is_number() && model["dropout"].value().number() == 0))
    component_not_supported(model["dropout"], "dropout");
  for (const std::string_view affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (model.has(affix) && !model[affix].text().empty()) component_not_supported(model[affix], "an affix");
  }
  if (!model["vocab"].value().is_object()) {
    fail(ErrorCode::malformed, model.where(), ".vocab is ", model["vocab"].value().type_name(), ", expected an object");
  }
  if (!model["merges"].value().is_array()) {
    fail(ErrorCode::malformed, model.where(), ".merges is ", model["merges"].value().type_name(),
         ", expected an array");
  }
  if (json.vocabulary.id_end() == 0) fail(ErrorCode::missing, model.where(), ".vocab has no pieces");
  BpeOptions options;
  if (model.has("unk_token")) options.unk_piece = model["unk_token"].text();
  options.fuse_unk = model.boolean("fuse_unk", false);
  options.byte_fallback = model.boolean("byte_fallback", false);
  options.ignore_merges = model.boolean("ignore_merges", false);
  Bpe bpe(std::move(json.vocabulary), options, source);
  bpe.reserve_merges(json.merges.size());
  for (std::size_t rank = 0; rank < json.merges.size(); ++rank) {
    const auto [left, right] = json.merges[rank];
    bpe.add_merge(left, right);
  }
  return bpe;
}

}  // namespace detail

/// Builds the parts that a tokenizer.json describes; errors name `source`. Throws missing or malformed for invalid
/// files, not_supported above max_piece_size, max_merges, max_steps or max_growth and for components other than these,
/// which are all that Gemma needs: model BPE; normalizers Replace, Prepend; pre-tokenizer Split; decoders Replace,
/// ByteFallback, Fuse, Strip; post-processor TemplateProcessing; literal patterns.
inline TokenizerParts make_tokenizer_parts(TokenizerJson json, const std::string& source) {
  const Json settings = std::move(json.settings);
  const JsonField file(settings, source, "tokenizer", ErrorCode::malformed);
  TokenizerParts parts{detail::read_model(std::move(json), file["model"], source),
                       {},
                       detail::read_normalizer(file),
                       detail::read_pre_tokenizer(file),
                       detail::read_decoder(file),
                       {},
                       {},
                       {}};
  detail::read_added_tokens(file, source, parts);
  detail::read_post_processor(file, parts);
  return parts;
}

}  // namespace ple::inline PLE_ABI
