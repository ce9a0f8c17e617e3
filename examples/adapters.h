// SPDX-License-Identifier: Apache-2.0
// Adapters on a command line.
#pragma once

#include <ple/checkpoint/peft_adapter.h>
#include <ple/model/language_model.h>

#include "arguments.h"

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace examples {

/// FOLDER or FOLDER=SCALE; `what` names it in errors.
inline ple::SessionAdapter adapter_of(std::string_view what, std::string folder) {
  float scale = 1;
  if (const std::size_t equals = folder.rfind('='); equals != folder.npos && !std::filesystem::exists(folder)) {
    scale = number_of<float>(what, folder.substr(equals + 1));
    folder.erase(equals);
  }
  return {std::make_shared<const ple::Adapter>(ple::open_peft_adapter(folder)), scale};
}

}  // namespace examples
