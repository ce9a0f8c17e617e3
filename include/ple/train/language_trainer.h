// SPDX-License-Identifier: Apache-2.0
// Training of a model whose family only its file tells.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <variant>

#include "ple/checkpoint/checkpoint.h"
#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/family/families.h"
#include "ple/model/language_model.h"
#include "ple/simd/default_backend.h"
#include "ple/train/checkpoint.h"
#include "ple/train/trainer.h"

namespace ple::inline PLE_ABI {

/// A model and its Trainer. See there, and train/checkpoint.h for save and load.
class LanguageTrainer {
 public:
  virtual ~LanguageTrainer() = default;

  virtual const LanguageModel& model() const = 0;
  virtual TrainingStep step(Executor& executor, std::span<const TrainingSequence> batch) = 0;
  virtual double evaluate(Executor& executor, std::span<const TrainingSequence> sequences) = 0;
  virtual std::uint64_t steps() const = 0;
  virtual const TrainingOptions& options() const = 0;
  virtual TrainedParameters& trained() = 0;
  virtual void save(const std::filesystem::path& path, const std::map<std::string, std::string>& notes = {}) = 0;
  virtual std::map<std::string, std::string> load(const std::filesystem::path& path) = 0;
};

namespace detail {

template <class Model>
class LanguageTrainerOf final : public LanguageTrainer {
 public:
  LanguageTrainerOf(const Checkpoint& checkpoint, const TrainingOptions& options, const LoadOptions& load)
      : model_(Model::load(checkpoint, load)), trainer_(model_, options) {}

  const LanguageModel& model() const override { return model_; }
  TrainingStep step(Executor& executor, std::span<const TrainingSequence> batch) override {
    return trainer_.step(executor, batch);
  }
  double evaluate(Executor& executor, std::span<const TrainingSequence> sequences) override {
    return trainer_.evaluate(executor, sequences);
  }
  std::uint64_t steps() const override { return trainer_.steps(); }
  const TrainingOptions& options() const override { return trainer_.options(); }
  TrainedParameters& trained() override { return trainer_.trained(); }
  void save(const std::filesystem::path& path, const std::map<std::string, std::string>& notes) override {
    save_checkpoint(trainer_, path, notes);
  }
  std::map<std::string, std::string> load(const std::filesystem::path& path) override {
    return load_checkpoint(trainer_, path);
  }

 private:
  Model model_;
  Trainer<Model> trainer_;
};

}  // namespace detail

/// Opens a checkpoint's model for training. Its weights are used where the file is mapped: a training step reads each
/// of them a few times for all its tokens, and the system may drop them in between. T and B as for Gemma4.
/// Errors: those of Decoder::load and Trainer; ErrorCode::not_supported for Gemma 3n; system if there is no memory.
template <class T = Any, GradientBackend B = DefaultBackend>
std::unique_ptr<LanguageTrainer> load_trainer(const Checkpoint& checkpoint, const TrainingOptions& options,
                                              const TableStorage& table = Mapped{}) {
  const LoadOptions load{.table = table, .weights = WeightStorage::mapped};
  return std::visit(
      [&]<class Config>(const Config& config) -> std::unique_ptr<LanguageTrainer> {
        using Model = typename Family<Config>::template Model<T, B>;
        if constexpr (TrainableBlock<typename Model::Layer>) {
          try {
            return std::make_unique<detail::LanguageTrainerOf<Model>>(checkpoint, options, load);
          } catch (const std::bad_alloc&) {
            fail(ErrorCode::system, "training: no memory for sequences of ", options.gradient.max_tokens,
                 " tokens and adapters of rank ", options.rank);
          }
        } else {
          fail(ErrorCode::not_supported, "training: models of the family ", config.family);
        }
      },
      checkpoint.any_config());
}

}  // namespace ple::inline PLE_ABI
