// SPDX-License-Identifier: Apache-2.0
// Everything but the opt-in headers: ple/dispatch.h (run-time choice of vectors) and ple/tensor/eigen.h.
#pragma once

#include "ple/core/error.h"
#include "ple/core/executor.h"
#include "ple/core/system.h"
#include "ple/core/token.h"
#include "ple/dtype/dtype.h"
#include "ple/io/checkpoint.h"
#include "ple/io/load_model.h"
#include "ple/model/decoder.h"
#include "ple/model/gemma3n.h"
#include "ple/model/gemma3n_config.h"
#include "ple/model/gemma4.h"
#include "ple/model/gemma4_config.h"
#include "ple/model/sampling_options.h"
#include "ple/run/batch.h"
#include "ple/run/chat.h"
#include "ple/run/generation.h"
#include "ple/run/sampler.h"
#include "ple/run/saved_session.h"
#include "ple/run/session.h"
#include "ple/simd/backend.h"
#include "ple/table/ple_table.h"
#include "ple/tensor/matrix.h"
#include "ple/text/chat.h"
#include "ple/text/stream_decoder.h"
#include "ple/text/tokenizer.h"
#include "ple/version.h"

// clang has no note that is not a warning, and this must not break a build with -Werror.
#if (HWY_STATIC_TARGET == HWY_SCALAR || HWY_STATIC_TARGET == HWY_EMU128) && !defined(HIGHWAY_HWY_FOREACH_TARGET_H_) && \
    defined(__OPTIMIZE__) && !defined(__clang__)
#pragma message("ple::Simd is one lane wide here: compile with -march=native, or use BestSimd of <ple/dispatch.h>")
#endif
