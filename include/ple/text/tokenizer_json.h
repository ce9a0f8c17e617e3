// SPDX-License-Identifier: Apache-2.0
// Reads a tokenizer.json: vocabulary and merges straight into flat storage, the rest as a small JSON value.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/json.h"
#include "ple/formats/json_field.h"
#include "ple/text/vocabulary.h"

namespace ple::inline PLE_ABI {

/// The merges of a file: (left, right) texts in rank order, in one string.
class MergeList {
 public:
  void add(std::string_view left, std::string_view right, const std::string& source) {
    if (chars_.size() + left.size() + right.size() > 0xFFFFFFFFu) {
      fail(ErrorCode::malformed, source, ": the merges exceed 4 GiB");
    }
    chars_ += left;
    ends_.push_back(static_cast<std::uint32_t>(chars_.size()));
    chars_ += right;
    ends_.push_back(static_cast<std::uint32_t>(chars_.size()));
  }
  std::size_t size() const { return ends_.size() / 2; }
  std::pair<std::string_view, std::string_view> operator[](std::size_t rank) const {
    return {part(2 * rank), part(2 * rank + 1)};
  }

 private:
  std::string_view part(std::size_t i) const {
    const std::size_t begin = i == 0 ? 0 : ends_[i - 1];
    return std::string_view(chars_).substr(begin, ends_[i] - begin);
  }

  std::string chars_;
  std::vector<std::uint32_t> ends_;
};

struct TokenizerJson {
  Json settings;          ///< the file; model.vocab and model.merges are empty in it
  Vocabulary vocabulary;  ///< model.vocab
  MergeList merges;       ///< model.merges, written as "a b" or as ["a", "b"]
};

/// Takes a JsonReader's events: vocabulary and merges go to flat storage, the rest to a JsonBuilder.
class TokenizerJsonHandler final : public JsonHandler {
 public:
  /// `source` names the file in errors, and must outlive this.
  explicit TokenizerJsonHandler(const std::string& source, const JsonLimits& limits = {})
      : source_(source), settings_(source, limits) {}

  TokenizerJson take() {
    result_.settings = settings_.take();
    return std::move(result_);
  }

  void scalar(Json value) override {
    if (part_ == Part::vocab && value.is_natural()) {
      if (value.natural() > max_token_id) {
        fail(ErrorCode::malformed, source_, ": piece '", key_, "' has id ", value.natural(), ", expected 0 to ",
             max_token_id);
      }
      return result_.vocabulary.add(static_cast<std::int64_t>(value.natural()), key_, source_);
    }
    if (part_ != Part::settings) unexpected(value.brief());
    settings_.scalar(std::move(value));
  }
  void string(std::string& value) override {
    if (part_ == Part::merges) return add_merge(value);
    if (part_ == Part::merge_pair) {
      if (sides_.size() == 2) {
        fail(ErrorCode::malformed, source_, ": merge ", result_.merges.size(), " has more than two sides");
      }
      sides_.push_back(std::move(value));
      return;
    }
    if (part_ != Part::settings) unexpected("a string");
    settings_.string(value);
  }
  void key(std::string& value) override {
    key_ = value;
    if (part_ == Part::settings) settings_.key(value);
  }
  void start_object() override {
    if (part_ != Part::settings) unexpected("an object");
    open(false);
    settings_.start_object();
    if (is_open("vocab")) part_ = Part::vocab;
  }
  void end_object() override {
    part_ = Part::settings;
    --depth_;
    settings_.end_object();
  }
  void start_array() override {
    if (part_ == Part::merges) {
      part_ = Part::merge_pair;
      sides_.clear();
      return;
    }
    if (part_ != Part::settings) unexpected("an array");
    open(true);
    settings_.start_array();
    if (is_open("merges")) part_ = Part::merges;
  }
  void end_array() override {
    if (part_ != Part::merge_pair) {
      part_ = Part::settings;
      --depth_;
      return settings_.end_array();
    }
    if (sides_.size() != 2) {
      fail(ErrorCode::malformed, source_, ": merge ", result_.merges.size(), " has ", sides_.size(),
           " sides, expected 2");
    }
    result_.merges.add(sides_[0], sides_[1], source_);
    part_ = Part::merges;
  }

 private:
  enum class Part { settings, vocab, merges, merge_pair };

  struct Container {
    std::string name;  // its key; empty in an array
    bool is_array;
  };

  void open(bool is_array) {
    if (depth_ < open_.size()) {
      const bool named = depth_ > 0 && !open_[depth_ - 1].is_array;
      open_[depth_] = {named ? key_ : std::string(), is_array};
    }
    ++depth_;
  }
  // Whether the container opened last is the member `name` of the file's "model".
  bool is_open(std::string_view name) const { return depth_ == 3 && open_[1].name == "model" && open_[2].name == name; }
  [[noreturn]] void unexpected(const std::string& kind) const {
    if (part_ == Part::vocab) {
      fail(ErrorCode::malformed, source_, ": model.vocab['", key_, "'] is ", kind, ", expected an id");
    }
    fail(ErrorCode::malformed, source_, ": merge ", result_.merges.size(), " is or holds ", kind,
         ", expected \"left right\" or [\"left\", \"right\"]");
  }
  void add_merge(std::string_view merge) {
    if (merge.substr(0, 8) == "#version") return;
    const std::size_t space = merge.find(' ');
    if (space == std::string_view::npos || merge.find(' ', space + 1) != std::string_view::npos) {
      fail(ErrorCode::malformed, source_, ": merge ", result_.merges.size(), " is '", merge,
           "', expected two pieces and one space");
    }
    result_.merges.add(merge.substr(0, space), merge.substr(space + 1), source_);
  }

  const std::string& source_;
  JsonBuilder settings_;
  TokenizerJson result_;
  Part part_ = Part::settings;
  std::size_t depth_ = 0;
  std::array<Container, 3> open_;  // the outermost three: the file, its model, a member of that
  std::string key_;
  std::vector<std::string> sides_;
};

}  // namespace ple::inline PLE_ABI
