// SPDX-License-Identifier: Apache-2.0
// Compiles what ple/models.h declares. Include it in one file of a program.
#pragma once

#include "ple/models.h"

namespace ple::inline PLE_ABI {

template class Decoder<Gemma4Block<>>;
template class Decoder<Gemma3nBlock<>>;
template class Decoder<Gemma3Block<>>;
template Gemma4<> Gemma4<>::load(const Checkpoint&, const LoadOptions&);
template Gemma3n<> Gemma3n<>::load(const Checkpoint&, const LoadOptions&);
template Gemma3<> Gemma3<>::load(const Checkpoint&, const LoadOptions&);
template std::unique_ptr<LanguageModel> load_model<>(const Checkpoint&, const LoadOptions&);
template Checkpoint Checkpoint::open_files<Checkpoint>(const std::filesystem::path&, const CheckpointOptions&);
template Chat::Chat(const LanguageModel&, const Checkpoint&, ChatOptions);
template void detail::Conversation::say<>(std::string_view, const PromptProgress&);
template bool detail::Conversation::more<>();

}  // namespace ple::inline PLE_ABI
