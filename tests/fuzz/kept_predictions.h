// SPDX-License-Identifier: Apache-2.0
// A file of kept predictions, with the checksum that belongs to its bytes.
#pragma once

#include "harness.h"
#include "ple/run/kept_predictions.h"
#include "saved_session.h"

namespace ple::fuzz {

inline constexpr std::size_t kept_vocab_size = 8;

inline void kept_predictions(std::string_view data) {
  static const testing::TemporaryFolder folder;
  may_refuse([&] {
    const KeptPredictions kept(write_input(folder, "kept", with_checksum(data)));
    if (kept.header().vocab_size != kept_vocab_size) return;
    const std::vector<float> logits = {1, 2, 3, 4, 5, 6, 7, 8};
    for (std::size_t i = 0; i < kept.size(); ++i) {
      const KeptDivergence d = kept.compare(i, logits, 8.5);
      require(!(d.kept < 0), "a negative probability");
    }
  });
}

inline std::vector<std::string> kept_predictions_seeds() {
  const testing::TemporaryFolder folder;
  std::vector<std::string> seeds;
  const std::vector<Token> tokens = {2, 3, 4, 5, 6, 7};
  for (const std::uint64_t scored : {0, 1, 3}) {
    KeptPredictionsWriter writer(
        folder / "kept", {}, {.vocab_size = kept_vocab_size, .tokens = tokens.size(), .context = 4, .scored = scored},
        tokens);
    for (std::uint64_t i = 0; i < scored; ++i) {
      writer.write(keep_prediction(std::vector<float>{0, 1, 2, 3, 4, 5, 6, static_cast<float>(i)}, 1));
    }
    writer.finish();
    std::ifstream in(folder / "kept", std::ios::binary);
    seeds.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
    seeds.back().resize(seeds.back().size() - sizeof(std::uint64_t));
  }
  return seeds;
}

}  // namespace ple::fuzz
