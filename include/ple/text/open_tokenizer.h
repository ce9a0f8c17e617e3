// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>

#include "ple/checkpoint/checkpoint.h"
#include "ple/core/config.h"
#include "ple/formats/gguf.h"
#include "ple/text/gguf_tokenizer.h"
#include "ple/text/tokenizer.h"

namespace ple::inline PLE_ABI {

/// Reads a tokenizer.json or a GGUF file's tokenizer. Errors: Tokenizer::open's; config for a GGUF key of wrong type.
inline Tokenizer open_tokenizer(const std::filesystem::path& path, const JsonLimits& limits = {}) {
  if (GgufFile::is_one(path)) return Tokenizer(make_tokenizer_parts(GgufFile::open(path).metadata()));
  return Tokenizer::open(path, limits);
}

/// A checkpoint's tokenizer, within the checkpoint's limits. Errors: the same.
inline Tokenizer open_tokenizer(const Checkpoint& checkpoint) {
  return open_tokenizer(checkpoint.tokenizer_file(), checkpoint.limits().json);
}

}  // namespace ple::inline PLE_ABI
