// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ple/train/pack_texts.h>
#include <ple/train/sequence.h>

#include <vector>

namespace examples {

/// What a trainer reads; `packs` must outlive it.
inline std::vector<ple::TrainingSequence> sequences_of(const std::vector<ple::PackedTexts>& packs) {
  std::vector<ple::TrainingSequence> all;
  for (const ple::PackedTexts& pack : packs) all.push_back({pack.tokens, pack.learnt, pack.begins});
  return all;
}

}  // namespace examples
