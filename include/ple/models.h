// SPDX-License-Identifier: Apache-2.0
// For programs of many files: the usual models, and what opens, loads and talks to them, are compiled in the one file
// that includes <ple/instantiate.h>. Without that file the linker misses them.
#pragma once

#include "ple/ple.h"

namespace ple::inline PLE_ABI {

extern template class Decoder<Gemma4Block<>>;
extern template class Decoder<Gemma3nBlock<>>;
extern template class Decoder<Gemma3Block<>>;
extern template Gemma4<> Gemma4<>::load(const Checkpoint&, const LoadOptions&);
extern template Gemma3n<> Gemma3n<>::load(const Checkpoint&, const LoadOptions&);
extern template Gemma3<> Gemma3<>::load(const Checkpoint&, const LoadOptions&);
extern template std::unique_ptr<LanguageModel> load_model<>(const Checkpoint&, const LoadOptions&);
extern template Checkpoint Checkpoint::open_files<Checkpoint>(const std::filesystem::path&, const CheckpointOptions&);
extern template Chat::Chat(const LanguageModel&, const Checkpoint&, ChatOptions);
extern template void detail::Conversation::say<>(std::string_view, const PromptProgress&);
extern template bool detail::Conversation::more<>();

}  // namespace ple::inline PLE_ABI
