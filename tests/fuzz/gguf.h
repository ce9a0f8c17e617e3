// SPDX-License-Identifier: Apache-2.0
// A GGUF file: its keys and tensors, the model in it, its tokenizer.
#pragma once

#include <cstdio>

#include "../formats/gguf_writer.h"
#include "harness.h"
#include "models.h"
#include "ple/formats/gguf.h"
#include "ple/text/open_tokenizer.h"
#include "ple/text/tokenizer.h"

namespace ple::fuzz {

inline void gguf(std::string_view data) {
  static const testing::TemporaryFolder folder;
  const auto path = write_input(folder, "model.gguf", data);
  may_refuse([&] {
    const auto file = GgufFile::open(path);
    for (const TensorInfo& info : file.list()) {
      may_refuse([&] {
        const Tensor tensor = file.tensor(info.name);
        touch(tensor.data, tensor.bytes);
      });
    }
  });
  may_refuse([&] { use(path); });
  may_refuse([&] {
    const auto tokenizer = open_tokenizer(path);
    tokenizer.decode(tokenizer.encode("a bab<bos> \xff\xc3\xa9"));
  });
}

inline std::vector<std::string> gguf_seeds() {
  using testing::GgufWriter;
  GgufWriter model = testing::gguf_of(Checkpoint::open(valid_folder().path()));
  /// Twenty pieces, as many as the model's tokens, or with `bytes` 256 more that stand for one byte each.
  const auto add_tokenizer = [](GgufWriter& file, const std::string& kind, bool bytes) {
    std::vector<std::string> pieces = {"<pad>", "<eos>", "<bos>", "<unk>", "a", "b", "ab", "\xE2\x96\x81"};
    std::vector<std::int32_t> types = {3, 3, 3, 2, 1, 1, 1, 1};
    for (int i = 8; i < 20; ++i) pieces.push_back("c" + std::to_string(i));
    types.resize(pieces.size(), 1);
    for (int i = 0; bytes && i < 256; ++i) {
      char piece[8];
      std::snprintf(piece, sizeof piece, "<0x%02X>", static_cast<unsigned>(i));
      pieces.push_back(piece);
      types.push_back(6);
    }
    file.text("tokenizer.ggml.model", kind).texts("tokenizer.ggml.tokens", pieces);
    file.numbers("tokenizer.ggml.token_type", GgufWriter::i32, types);
    file.numbers("tokenizer.ggml.scores", GgufWriter::float32, std::vector<float>(pieces.size(), -1));
    file.texts("tokenizer.ggml.merges", {"a b"});
    file.count("tokenizer.ggml.bos_token_id", 2).count("tokenizer.ggml.eos_token_id", 1);
    file.count("tokenizer.ggml.unknown_token_id", 3);
    file.text("tokenizer.chat_template", "<|turn><turn|>");
  };
  std::vector<std::string> seeds = {model.bytes()};
  add_tokenizer(model, "gemma4", false);
  seeds.push_back(model.bytes());
  GgufWriter text;
  add_tokenizer(text, "llama", true);
  seeds.push_back(text.bytes());
  GgufWriter types;
  types.array("nested", GgufWriter::array_type, 1,
              testing::raw(std::uint32_t{GgufWriter::u8}) + testing::raw<std::uint64_t>(2) + "ab");
  types.flag("flag", true).tensor("q", {2, 32}, 8, std::string(2 * 34, 'q')).tensor("f", {3}, 0, std::string(12, 'f'));
  types.alignment = 64;
  seeds.push_back(types.bytes());
  return seeds;
}

}  // namespace ple::fuzz
