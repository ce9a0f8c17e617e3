// SPDX-License-Identifier: Apache-2.0
#include "examples/backend.h"

#include <fmt/core.h>

#include <stdexcept>

namespace {

/// Calls f.template operator()<B>() with the backend of that name.
template <class F>
auto with_backend(const std::string& name, F&& f) {
  if (name == "scalar") return f.template operator()<ple::Scalar>();
  if (name == "native") return f.template operator()<ple::Simd>();
  if (name == "auto") return f.template operator()<ple::DefaultBackend>();
  throw std::runtime_error(fmt::format("--backend is '{}', expected scalar, native or auto", name));
}

}  // namespace

namespace examples {

std::unique_ptr<ple::LanguageModel> load_model(const ple::Checkpoint& checkpoint, const std::string& backend,
                                               const ple::LoadOptions& options) {
  return with_backend(backend, [&]<ple::Backend B>() { return ple::load_model<ple::Any, B>(checkpoint, options); });
}

std::string backend_name(const std::string& backend) {
  return with_backend(backend, []<ple::Backend B>() -> std::string { return B::name(); });
}

}  // namespace examples
