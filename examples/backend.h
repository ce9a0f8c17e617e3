// SPDX-License-Identifier: Apache-2.0
// `--backend scalar|native|auto` of the examples. Models of all three take long to compile: examples/lib does it once
// for all programs.
#pragma once

#include <ple/models.h>

#include <memory>
#include <string>

namespace examples {

/// The model, computed by plain C++ (scalar), by the vectors the compiler was told of (native), or by ple's choice
/// (auto): without -march the best this CPU has, with it the compiler's. Errors: another name, and those of
/// ple::load_model.
std::unique_ptr<ple::LanguageModel> load_model(const ple::Checkpoint& checkpoint, const std::string& backend,
                                               const ple::LoadOptions& options = {});

/// What the backend of that name calls itself, such as AVX2.
std::string backend_name(const std::string& backend);

}  // namespace examples
