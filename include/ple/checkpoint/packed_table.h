// SPDX-License-Identifier: Apache-2.0
// A PLE table in a file of its own: a safetensors file whose metadata say what a row is made of.
//   ple_table        [rows, layers * p] in its type; U8 [rows, bytes of a row] unless all layers have one float type
//   pad_identity     F32 [layers * p], folded tables only: the identity part of positions without text
//   kept_tokens      I32 [rows], cut-down vocabularies only: the tokens that have rows, in the rows' order
//   token_embedding  [rows, d], with kept_tokens: their embeddings
//   bases            F32 [sum of the ranks, p], with ranks only: of each layer with a rank R, [R, p]; the R numbers
//                    that a row has, times this, are its values
// Metadata: format, layers, width, vocab_size, dtypes ("bf16,q8_0,none": one a layer), scale, folded, substitute; ranks
// ("32,full,full"), which make the format ple.table.2, so that older readers refuse the file.
#pragma once

#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/number_text.h"
#include "ple/formats/limits.h"
#include "ple/formats/safetensors.h"
#include "ple/table/ple_table.h"

namespace ple::inline PLE_ABI {

inline constexpr std::string_view packed_table_format = "ple.table.1", ranked_table_format = "ple.table.2";

/// A type's name in safetensors, which knows blocks only as bytes.
inline std::string_view safetensors_name(Dtype type) {
  return type == Dtype::f32 ? "F32" : type == Dtype::bf16 ? "BF16" : type == Dtype::f16 ? "F16" : "U8";
}

/// Rows as in a checkpoint if all layers have one unquantised type, else aligned to cache lines. Errors: RowLayout's.
inline RowLayout packed_layout(const std::vector<std::optional<Dtype>>& dtypes, std::size_t width,
                               const std::vector<std::size_t>& ranks = {}) {
  const RowLayout tight(dtypes, width, 1, ranks);
  const std::optional<Dtype> only = tight.only_dtype();
  return only && values_per_block(*only) == 1 ? tight : RowLayout(dtypes, width, alignment, ranks);
}

namespace detail {

class TableMetadata {
 public:
  TableMetadata(const SafetensorsFile& file, std::string name) : fields_(&file.metadata()), file_(std::move(name)) {}

  const std::string* find(const std::string& field) const {
    const auto found = fields_->find(field);
    return found == fields_->end() ? nullptr : &found->second;
  }
  const std::string& text(const std::string& field) const {
    if (const std::string* found = find(field)) return *found;
    fail(ErrorCode::missing, file_, ": __metadata__: ", field, " is missing: is this a table that ple packed?");
  }
  template <class Number>
  Number number(const std::string& field, Number least, Number most) const {
    const std::optional<Number> value = read<Number>(text(field));
    if (!value || !(*value >= least && *value <= most)) wrong(field, "a number from ", least, " to ", most);
    return *value;
  }
  template <class... Parts>
  [[noreturn, gnu::always_inline]] void wrong(const std::string& field, const Parts&... expected) const {
    fail(ErrorCode::malformed, file_, ": __metadata__: ", field, " is '", text(field), "', expected ", expected...);
  }

 private:
  template <class Number>
  static std::optional<Number> read(std::string_view word) {
    if constexpr (std::floating_point<Number>) {
      return parse_number<Number>(word);
    } else {
      Number value{};
      const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
      return error == std::errc() && end == word.data() + word.size() ? std::optional(value) : std::nullopt;
    }
  }

  const SafetensorsFile::Metadata* fields_;
  std::string file_;
};

/// Each layer's part of the tensor `bases`, which has the layout's shape.
inline std::vector<Tensor> split_bases(const Tensor& bases, const RowLayout& layout) {
  std::vector<Tensor> parts(layout.layers());
  const std::byte* from = bases.data;
  for (std::size_t l = 0; l < parts.size(); ++l) {
    if (layout.rank(l) == 0) continue;
    parts[l] = bases;
    parts[l].shape = {layout.rank(l), layout.width()};
    parts[l].data = from;
    parts[l].bytes = layout.rank(l) * layout.width() * sizeof(float);
    from += parts[l].bytes;
  }
  return parts;
}

}  // namespace detail

/// What such a file replaces in a checkpoint.
struct PackedTable : TableSource {
  std::optional<Tensor> token_embedding = {};  ///< with `vocabulary`: of its tokens; also the head if that is tied
};

/// Opens a packed table; reads no rows. Errors: ErrorCode::file, malformed, missing, shape, dtype, config, limit
/// (vocab_size).
inline PackedTable read_packed_table(const std::filesystem::path& path, const CheckpointLimits& limits = {}) {
  const auto file = SafetensorsFile::open(path, limits.json);
  const std::string name = path.string();
  const detail::TableMetadata metadata(file, name);
  const bool ranked = metadata.text("format") == ranked_table_format;
  if (!ranked && metadata.text("format") != packed_table_format)
    metadata.wrong("format", packed_table_format, " or ", ranked_table_format);
  const auto layers = metadata.number<std::size_t>("layers", 1, 4096);
  const auto width = metadata.number<std::size_t>("width", 1, 65536);
  const auto vocab_size = metadata.number<std::size_t>("vocab_size", 1, std::size_t{1} << 30);
  detail::check_vocab_size(name, vocab_size, limits);  // a cut-down vocabulary takes 4 bytes a token
  const auto dtypes = RowLayout::parse(metadata.text("dtypes"), layers, name + ": __metadata__: dtypes");
  std::vector<std::size_t> ranks;
  if (ranked) ranks = RowLayout::parse_ranks(metadata.text("ranks"), layers, width, name + ": __metadata__: ranks");
  const auto expect = [&](const Tensor& tensor, const std::vector<std::uint64_t>& shape) {
    if (tensor.shape == shape) return;
    fail(ErrorCode::shape, name, ": ", tensor.name, ": shape is ", shape_text(tensor.shape), ", expected ",
         shape_text(shape));
  };

  PackedTable source;
  source.tensor = file.raw("ple_table");
  try {
    source.layout = packed_layout(dtypes, width, ranks);
  } catch (const Error& error) {
    fail(error.code(), name, ": __metadata__: ", error.what());
  }
  const std::optional<Dtype> only = source.layout.only_dtype();
  const bool plain = only && values_per_block(*only) == 1;
  const std::string& stored_as = file.dtype("ple_table");
  const std::string_view expected = plain ? safetensors_name(*only) : "U8";
  if (stored_as != expected) {
    fail(ErrorCode::dtype, name, ": ple_table: dtype is ", stored_as, ", expected ", expected, " for rows of ",
         metadata.text("dtypes"));
  }
  if (source.tensor.shape.size() != 2)
    expect(source.tensor, {vocab_size, plain ? layers * width : source.layout.row_bytes()});
  source.rows = source.tensor.shape[0];
  expect(source.tensor, {source.rows, plain ? layers * width : source.layout.row_bytes()});
  if (ranked) {
    const Tensor bases = file.raw("bases");
    if (file.dtype("bases") != "F32") {
      fail(ErrorCode::dtype, name, ": bases: dtype is ", file.dtype("bases"), ", expected F32");
    }
    expect(bases, {source.layout.sum_of_ranks(), width});
    source.bases = detail::split_bases(bases, source.layout);
  }
  source.scale = metadata.number<float>("scale", 1e-30f, 1e30f);
  const std::string& folded = metadata.text("folded");
  if (folded != "true" && folded != "false") metadata.wrong("folded", "true or false");
  source.folded = folded == "true";

  const auto numbers = [&](const std::string& tensor_name, std::string_view dtype, std::size_t count, auto& values) {
    const Tensor tensor = file.raw(tensor_name);
    if (file.dtype(tensor_name) != dtype) {
      fail(ErrorCode::dtype, name, ": ", tensor_name, ": dtype is ", file.dtype(tensor_name), ", expected ", dtype);
    }
    expect(tensor, {count});
    values.resize(count);
    std::memcpy(values.data(), tensor.data, tensor.bytes);
  };
  if (source.folded) numbers("pad_identity", "F32", layers * width, source.pad_identity);
  if (!file.contains("kept_tokens")) {
    if (source.rows != vocab_size) expect(source.tensor, {vocab_size, source.tensor.shape[1]});
    return source;
  }
  std::vector<Token> kept;
  numbers("kept_tokens", "I32", source.rows, kept);
  std::vector<bool> seen(vocab_size, false);
  for (const Token token : kept) {
    if (token < 0 || static_cast<std::size_t>(token) >= vocab_size || seen[static_cast<std::size_t>(token)]) {
      fail(ErrorCode::malformed, name, ": kept_tokens: has ", token, ", expected different tokens from 0 to ",
           vocab_size - 1);
    }
    seen[static_cast<std::size_t>(token)] = true;
  }
  std::optional<Token> substitute;
  if (metadata.find("substitute")) {
    substitute = metadata.number<Token>("substitute", 0, static_cast<Token>(vocab_size - 1));
    if (!seen[static_cast<std::size_t>(*substitute)]) metadata.wrong("substitute", "a token of kept_tokens");
  }
  source.vocabulary = std::make_shared<VocabularyMap>(std::move(kept), vocab_size, substitute);
  source.token_embedding = file.tensor("token_embedding");
  return source;
}

}  // namespace ple::inline PLE_ABI
