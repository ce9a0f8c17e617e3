// SPDX-License-Identifier: Apache-2.0
// Everything but the opt-in headers: ple/dispatch.h (run-time choice of vectors), with Eigen ple/tensor/eigen.h and
// ple/table/spectrum.h, for adapters ple/checkpoint/peft_adapter.h and peft_writer.h, for training
// ple/train/language_trainer.h, and for vectors of texts ple/family/embedding_gemma2/block.h and ple/run/embedder.h.
#pragma once

#include "ple/checkpoint/checkpoint.h"
#include "ple/checkpoint/hf_folder.h"
#include "ple/checkpoint/load_model.h"
#include "ple/core/error.h"
#include "ple/core/executor.h"
#include "ple/core/system.h"
#include "ple/core/thread_pool.h"
#include "ple/core/token.h"
#include "ple/dtype/dtype.h"
#include "ple/family/families.h"
#include "ple/model/decoder.h"
#include "ple/model/sampling_options.h"
#include "ple/run/batch.h"
#include "ple/run/chat.h"
#include "ple/run/generation.h"
#include "ple/run/sampler.h"
#include "ple/run/saved_session.h"
#include "ple/run/session.h"
#include "ple/simd/backend.h"
#include "ple/simd/default_backend.h"
#include "ple/table/ple_table.h"
#include "ple/table/streamed.h"
#include "ple/tensor/matrix.h"
#include "ple/text/chat_format.h"
#include "ple/text/open_tokenizer.h"
#include "ple/text/stream_decoder.h"
#include "ple/text/tokenizer.h"
#include "ple/version.h"
