// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "chat.h"
#include "config.h"
#include "dataset.h"
#include "gguf.h"
#include "jinja.h"
#include "kept_predictions.h"
#include "packed_table.h"
#include "peft_adapter.h"
#include "safetensors.h"
#include "safetensors_index.h"
#include "saved_session.h"
#include "tokenizer.h"
#include "tokenizer_json.h"

namespace ple::fuzz {

inline constexpr Target targets[] = {
    {"safetensors", safetensors, safetensors_seeds},
    {"safetensors_index", safetensors_index, safetensors_index_seeds},
    {"gguf", gguf, gguf_seeds},
    {"packed_table", packed_table, packed_table_seeds},
    {"config", config, config_seeds},
    {"tokenizer_json", tokenizer_json, tokenizer_json_seeds},
    {"tokenizer", tokenizer, tokenizer_seeds},
    {"chat", chat, chat_seeds},
    {"jinja", jinja, jinja_seeds},
    {"saved_session", saved_session, saved_session_seeds},
    {"peft_adapter", peft_adapter, peft_adapter_seeds},
    {"kept_predictions", kept_predictions, kept_predictions_seeds},
    {"dataset", dataset, dataset_seeds},
};

}  // namespace ple::fuzz
