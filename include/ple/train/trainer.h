// SPDX-License-Identifier: Apache-2.0
// Fine-tunes a model: makes what is trained, and changes it step by step. The model itself stays as it is.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/executor.h"
#include "ple/model/adapter.h"
#include "ple/model/parameter.h"
#include "ple/table/row_layout.h"
#include "ple/train/adamw.h"
#include "ple/train/decoder.h"
#include "ple/train/parameters.h"
#include "ple/train/schedule.h"
#include "ple/train/shuffle.h"

namespace ple::inline PLE_ABI {

/// What is trained, and how. The defaults are what most people fine-tune Gemma with.
struct TrainingOptions {
  /// Matrices that get an adapter, of adaptable_parameters, in every layer that has them.
  std::vector<Parameter> adapters = {Parameter::query, Parameter::key, Parameter::value, Parameter::attention_output,
                                     Parameter::gate,  Parameter::up,  Parameter::down};
  std::size_t rank = 16;
  double alpha = 16;                    ///< what an adapter adds is multiplied by alpha / rank
  std::vector<Parameter> weights = {};  ///< norms, and matrices of PLE steps, that are trained themselves
  bool rows = false;                    ///< rows of the PLE table, of tokens that occur
  std::vector<RowId> only_rows = {};    ///< these rows alone; empty: any
  double rate = 2e-4;                   ///< the learning rate
  double weight_share = 0;              ///< `weights` move by this share of their RMS instead; 0: by `rate`
  double row_rate = 0;                  ///< that of rows; 0: row_share times the RMS of the table's values
  double row_share = 0.01;
  double decay = 0;  ///< weight decay; of rows and norms none
  double clip = 1;   ///< most norm of a step's gradient; 0: any
  CosineSchedule schedule = {};
  AdamW adamw = {};
  std::uint64_t seed = 1;
  GradientOptions gradient = {};
};

struct TrainingStep {
  double loss = 0;           ///< mean -log p over the step's tokens that count, before the step
  double gradient_norm = 0;  ///< before clipping
  double rate = 0;
  std::size_t tokens = 0, learnt = 0;
};

namespace detail {

/// Norms, and matrices of PLE steps.
inline bool can_train_weights(Parameter parameter) {
  constexpr std::array all = {Parameter::final_norm,
                              Parameter::ple_context_projection,
                              Parameter::ple_context_norm,
                              Parameter::input_norm,
                              Parameter::query_norm,
                              Parameter::key_norm,
                              Parameter::post_attention_norm,
                              Parameter::pre_feed_forward_norm,
                              Parameter::post_feed_forward_norm,
                              Parameter::ple_gate,
                              Parameter::ple_output,
                              Parameter::post_ple_norm};
  return std::find(all.begin(), all.end(), parameter) != all.end();
}

/// What is trained, as it begins: adapters that add nothing (A uniform in +-1/sqrt(in), B 0, as PEFT makes them), the
/// model's own weights. Errors: ErrorCode::argument for a parameter that cannot be trained; missing for one that the
/// model does not have.
template <class Model>
TrainedParameters make_trained(const Model& model, const TrainingOptions& options) {
  using B = typename Model::B;
  using T = typename Model::T;
  TrainedParameters trained;
  trained.trains_rows = options.rows;
  trained.only_rows = {options.only_rows.begin(), options.only_rows.end()};
  const auto listed = [](const std::vector<Parameter>& all, Parameter parameter) {
    return std::find(all.begin(), all.end(), parameter) != all.end();
  };
  for (const Parameter parameter : options.adapters) {
    if (std::find(adaptable_parameters.begin(), adaptable_parameters.end(), parameter) == adaptable_parameters.end()) {
      fail(ErrorCode::argument, "TrainingOptions: no adapter for ", role_of(parameter).hf);
    }
  }
  for (const Parameter parameter : options.weights) {
    if (!can_train_weights(parameter)) {
      fail(ErrorCode::argument, "TrainingOptions: ", role_of(parameter).hf, " cannot be trained, but with an adapter");
    }
  }
  if (!options.adapters.empty() && options.rank == 0) fail(ErrorCode::argument, "TrainingOptions: rank is 0");
  if (options.rows && !model.has_ple()) fail(ErrorCode::missing, "TrainingOptions: the model has no PLE table");
  if (!options.only_rows.empty() && !options.rows) {
    fail(ErrorCode::argument, "TrainingOptions: has only_rows, but rows is false");
  }
  for (const RowId id : options.only_rows) {
    if (id < model.table.rows()) continue;
    fail(ErrorCode::argument, "TrainingOptions: only_rows has row ", id, ", the table has ", model.table.rows());
  }
  SplitMix64 random(options.seed);
  // Changes nothing: parameters() is not const only because load() fills in values.
  const_cast<Model&>(model).parameters([&]<class V>(Parameter parameter, std::size_t layer, const V& values) {
    if constexpr (std::same_as<V, std::vector<float>>) {
      if (!listed(options.weights, parameter)) return;
      TrainedValues& weight = trained.weights[{parameter, layer}] = TrainedValues(values.size());
      std::copy(values.begin(), values.end(), weight.values.begin());
    } else if constexpr (std::same_as<V, Matrix<T>>) {
      if (listed(options.weights, parameter)) {
        TrainedValues& weight = trained.weights[{parameter, layer}] = TrainedValues(values.rows() * values.cols());
        const float* from = f32_rows<B>(values, 0, values.rows(), weight.values.data());
        if (from != weight.values.data()) std::copy_n(from, weight.values.size(), weight.values.begin());
      }
      if (listed(options.adapters, parameter)) {
        const std::size_t in = values.cols(), out = values.rows(), rank = options.rank;
        TrainedAdapter& adapter = trained.adapters[{parameter, layer}];
        adapter = {in,
                   out,
                   rank,
                   static_cast<float>(options.alpha / static_cast<double>(rank)),
                   TrainedValues(rank * in),
                   TrainedValues(rank * out)};
        const float most = 1 / std::sqrt(static_cast<float>(in));
        for (float& a : adapter.a.values) a = random.uniform(most);
      }
    }
  });
  const auto check_found = [&](const auto& found, const std::vector<Parameter>& wanted) {
    for (const Parameter parameter : wanted) {
      const bool any =
          std::any_of(found.begin(), found.end(), [&](const auto& e) { return e.first.parameter == parameter; });
      if (!any) fail(ErrorCode::missing, "TrainingOptions: the model has no ", role_of(parameter).hf);
    }
  };
  check_found(trained.adapters, options.adapters);
  check_found(trained.weights, options.weights);
  return trained;
}

/// Root of the mean square of a table's values, unscaled: of 64 rows, evenly spread, but for rows of zeros, which
/// tokens that a graft has not met have. Of a table of zeros, 1 / sqrt(p): such rows weigh as much as the context's
/// part.
template <class Model>
double rms_of_rows(const Model& model) {
  const auto& table = model.table;
  InlineExecutor executor;
  RowSelection selection = table.make_selection(1);
  AlignedVector<float> values(table.cols());
  double squares = 0;
  std::uint64_t used = 0;
  const std::uint64_t count = (std::min)(std::uint64_t{64}, table.rows());
  for (std::uint64_t i = 0; i < count; ++i) {
    selection.ids.assign(1, table.rows() / count * i);
    table.gather_stored(Context(executor), selection, 0, 0, model.blocks.size(),
                        {values.data(), 1, values.size(), values.size()});
    const double before = squares;
    for (const float v : values) squares += static_cast<double>(v) * static_cast<double>(v);
    used += squares > before ? 1 : 0;
  }
  if (used == 0) return 1 / std::sqrt(static_cast<double>(table.width()));
  return std::sqrt(squares / static_cast<double>(used * values.size()));
}

/// RMS of what is trained, as it begins. That of a new PLE step's norm, which is zero, is what its layer's other norm
/// of the kind has: in Gemma 3 270M from 2 in the first layers to 320 in the last. A rate for all would not move the
/// last.
template <class Model>
double scale_of(const Model& model, const TrainedParameters::Key& key, const TrainedValues& values) {
  const auto rms = [](const auto& all) {
    double squares = 0;
    for (const float v : all) squares += static_cast<double>(v) * static_cast<double>(v);
    return std::sqrt(squares / static_cast<double>(all.size()));
  };
  const double found = rms(values.values);
  if (found == 0 && key.parameter == Parameter::post_ple_norm) {
    return rms(model.blocks[key.layer].post_feed_forward_norm.weight);
  }
  return found;
}

}  // namespace detail

/// Model: a Decoder of Gemma 4 or Gemma 3, which must outlive this. Any number type; sums run in f32. Results do not
/// depend on the number of threads.
template <class Model>
class Trainer {
 public:
  /// Errors: those of detail::make_trained and DecoderGradient.
  Trainer(const Model& model, const TrainingOptions& options)
      : model_(model),
        options_(options),
        trained_(detail::make_trained(model, options)),
        gradient_(model, trained_, options.gradient) {
    if (options_.rows && options_.row_rate == 0) options_.row_rate = options_.row_share * detail::rms_of_rows(model);
    for (const auto& [key, values] : trained_.weights) {
      weight_rates_[key] =
          options_.weight_share > 0 ? options_.weight_share * detail::scale_of(model, key, values) : options_.rate;
    }
  }
  Trainer(const Trainer&) = delete;  // gradient_ refers to trained_
  Trainer& operator=(const Trainer&) = delete;

  /// Mean -log p over the tokens that count, with what has been learnt. 0 without any. Errors: those of step.
  double evaluate(Executor& executor, std::span<const TrainingSequence> sequences) {
    double sum = 0;
    std::size_t count = 0;
    for (const TrainingSequence& sequence : sequences) {
      sum += gradient_.loss(executor, sequence);
      count += sequence.learnt_count();
    }
    return count > 0 ? sum / static_cast<double>(count) : 0;
  }

  /// One step on all sequences together: each token that counts weighs the same. Errors, with nothing changed:
  /// ErrorCode::argument for a sequence that is too long, a token without a row, or if no token counts; file if the
  /// table cannot be read; not_finite if the loss or the gradient is no finite number.
  TrainingStep step(Executor& executor, std::span<const TrainingSequence> batch) {
    TrainingStep result;
    for (const TrainingSequence& sequence : batch) {
      sequence.check(options_.gradient.max_tokens);
      result.tokens += sequence.tokens.size();
      result.learnt += sequence.learnt_count();
    }
    if (result.learnt == 0) fail(ErrorCode::argument, "training: no token of the batch counts");
    clear_gradients();
    const auto count = static_cast<double>(result.learnt);
    for (const TrainingSequence& sequence : batch) {
      result.loss += gradient_.loss(executor, sequence, static_cast<float>(1 / count)) / count;
    }
    double squares = 0;
    trained_.for_each([&](const TrainedValues& values, bool) {
      for (const float g : values.gradient) squares += static_cast<double>(g) * static_cast<double>(g);
    });
    result.gradient_norm = std::sqrt(squares);
    if (!std::isfinite(result.loss) || !std::isfinite(result.gradient_norm)) {
      clear_gradients();
      fail(ErrorCode::not_finite, "training: step ", steps_ + 1, ": the loss is ", result.loss,
           ", the gradient's norm ", result.gradient_norm, ": a smaller learning rate may help");
    }
    const double factor = options_.clip > 0 ? (std::min)(1.0, options_.clip / (result.gradient_norm + 1e-6)) : 1,
                 at = options_.schedule.factor(steps_);
    result.rate = options_.rate * at;
    const auto update = [&](TrainedValues& values, double rate, double decay) {
      options_.adamw.step(values, rate * at, decay, static_cast<float>(factor));
    };
    for (auto& [key, adapter] : trained_.adapters) {
      update(adapter.a, options_.rate, options_.decay);
      update(adapter.b, options_.rate, options_.decay);
    }
    for (auto& [key, values] : trained_.weights) update(values, weight_rates_.at(key), 0);
    for (auto& [id, values] : trained_.rows) {
      if (!values.gradient.empty()) update(values, options_.row_rate, 0);  // else no text of this step needs it
    }
    ++steps_;
    return result;
  }

  std::uint64_t steps() const { return steps_; }  ///< made so far
  const TrainingOptions& options() const { return options_; }
  const Model& model() const { return model_; }
  TrainedParameters& trained() { return trained_; }
  const TrainedParameters& trained() const { return trained_; }

  /// Goes on from what a run of `steps` steps had learnt; train/checkpoint.h reads files of it.
  void resume(TrainedParameters&& trained, std::uint64_t steps) {
    trained_ = std::move(trained);
    steps_ = steps;
  }

 private:
  /// Rows have a gradient only in a step whose texts need them.
  void clear_gradients() {
    trained_.for_each([](TrainedValues& values, bool is_row) {
      if (is_row) {
        values.gradient = {};
      } else {
        std::fill(values.gradient.begin(), values.gradient.end(), 0.0f);
      }
    });
  }

  const Model& model_;
  TrainingOptions options_;
  TrainedParameters trained_;
  DecoderGradient<Model> gradient_;
  std::map<TrainedParameters::Key, double> weight_rates_;
  std::uint64_t steps_ = 0;
};

}  // namespace ple::inline PLE_ABI
