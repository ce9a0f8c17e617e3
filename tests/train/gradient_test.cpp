// SPDX-License-Identifier: Apache-2.0
// Gradients and optimiser runs against torch.autograd and torch.optim in f64
// (tests/reference/make_golden_gradients.py).
#include "../chosen_backend.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "../model/requantized.h"
#include "ple/checkpoint/checkpoint.h"
#include "ple/checkpoint/peft_adapter.h"
#include "ple/core/thread_pool.h"
#include "ple/family/families.h"
#include "ple/formats/safetensors.h"
#include "ple/train/trainer.h"

namespace ple::gradient_test {

namespace {

using Backend = testing::ChosenBackend;
const std::filesystem::path golden = std::filesystem::path(PLE_TEST_DATA) / "golden_gradients";

std::vector<float> floats(const SafetensorsFile& file, const std::string& name) {
  const Tensor tensor = file.tensor(name);
  const auto* values = reinterpret_cast<const float*>(tensor.data);
  return {values, values + tensor.bytes / sizeof(float)};
}

/// One case: a base, an adapter, two texts.
struct Case {
  std::filesystem::path folder;
  Json json = read_json_file(folder / "case.json");
  SafetensorsFile expected = SafetensorsFile::open(folder / "expected.safetensors");
  Checkpoint checkpoint = Checkpoint::open(folder / std::string(json.find("base")->text()));
  std::vector<Token> tokens[2];
  std::vector<std::uint8_t> learnt[2];

  explicit Case(std::filesystem::path f) : folder(std::move(f)) {
    for (std::size_t i = 0; i < 2; ++i) {
      const std::vector<float> ids = floats(expected, "tokens." + std::to_string(i)),
                               counts = floats(expected, "counts." + std::to_string(i));
      tokens[i].assign(ids.begin(), ids.end());
      learnt[i].assign(counts.begin(), counts.end());
    }
  }
  std::vector<TrainingSequence> sequences() const { return {{tokens[0], learnt[0]}, {tokens[1], learnt[1]}}; }

  /// Calls f(model), a Decoder of the family, if it can be trained.
  template <class F>
  void with_model(F&& f) const {
    std::visit(
        [&]<class Config>(const Config&) {
          using Model = typename Family<Config>::template Model<Any, Backend>;
          if constexpr (TrainableBlock<typename Model::Layer>) f(Model::load(checkpoint));
        },
        checkpoint.any_config());
  }
};

/// What PEFT saved becomes what is trained.
void set(TrainedParameters& trained, const Adapter& adapter) {
  REQUIRE(adapter.parts().size() == trained.adapters.size());
  for (const Adapter::Part& part : adapter.parts()) {
    TrainedAdapter* one = trained.adapter(part.parameter, part.layer);
    REQUIRE(one != nullptr);
    one->a.values = part.a;
    one->b.values = part.b;
    for (float& b : one->b.values) b /= one->scale;
  }
}

std::vector<Parameter> adapted(const Adapter& adapter) {
  std::vector<Parameter> all;
  for (const Adapter::Part& part : adapter.parts()) {
    if (std::find(all.begin(), all.end(), part.parameter) == all.end()) all.push_back(part.parameter);
  }
  return all;
}

/// Norms and PLE matrices that the golden data have gradients of.
std::vector<Parameter> trained_weights(const SafetensorsFile& expected) {
  std::vector<Parameter> all;
  for (const ParameterRole& role : parameter_roles) {
    const std::string layer = "gradient.layers.0." + std::string(role.hf), once = "gradient." + std::string(role.hf);
    if (expected.contains(is_of_layer(role.parameter) ? layer : once)) all.push_back(role.parameter);
  }
  return all;
}

TrainingOptions options_of(const Case& c, const Adapter& adapter, std::size_t threads) {
  return {.adapters = adapted(adapter),
          .rank = 4,
          .alpha = 8,
          .weights = trained_weights(c.expected),
          .rows = c.expected.contains("rows"),
          .gradient = {.max_tokens = 32, .threads = threads}};
}

/// As the golden names have it.
std::string name_of_gradient(Parameter parameter, std::size_t layer, const std::string& suffix) {
  std::string name = "gradient." + hf_name("", parameter, layer);
  if (suffix.empty()) return name;
  name.resize(name.size() - std::string(".weight").size());
  return name + suffix;
}

/// How far `values` are from the golden ones, relative to the largest of these.
float error_of(std::span<const float> values, std::span<const float> expected) {
  REQUIRE(values.size() == expected.size());
  float largest = 0, difference = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    largest = (std::max)(largest, std::abs(expected[i]));
    difference = std::isnan(values[i]) ? INFINITY : (std::max)(difference, std::abs(values[i] - expected[i]));
  }
  return difference / largest;
}

/// Calls f(name, gradient) for everything in training, with B as PEFT has it.
template <class F>
void for_each_gradient(const TrainedParameters& trained, F&& f) {
  for (const auto& entry : trained.adapters) {
    const auto& [parameter, layer] = entry.first;
    const TrainedAdapter& one = entry.second;
    f(name_of_gradient(parameter, layer, ".lora_A"), std::vector<float>(one.a.gradient.begin(), one.a.gradient.end()));
    std::vector<float> b(one.b.gradient.size());
    for (std::size_t r = 0; r < one.rank; ++r) {
      for (std::size_t o = 0; o < one.out; ++o) b[o * one.rank + r] = one.b.gradient[r * one.out + o];
    }
    f(name_of_gradient(parameter, layer, ".lora_B"), b);
  }
  for (const auto& entry : trained.weights) {
    const auto& [parameter, layer] = entry.first;
    f(name_of_gradient(parameter, layer, ""),
      std::vector<float>(entry.second.gradient.begin(), entry.second.gradient.end()));
  }
  std::vector<float> rows;
  for (const auto& entry : trained.rows) {
    rows.insert(rows.end(), entry.second.gradient.begin(), entry.second.gradient.end());
  }
  if (!rows.empty()) f("gradient.rows", rows);
}

template <class F>
void for_each_case(F&& f) {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(golden)) {
    if (!std::filesystem::exists(entry.path() / "case.json")) continue;
    ++count;
    const std::string name = entry.path().filename().string();
    CAPTURE(name);
    f(Case(entry.path()));
  }
  CHECK(count == 12);
}

}  // namespace

TEST_CASE("every gradient is torch.autograd's: every case and backend") {
  testing::for_each_choice([&] {
    for_each_case([&](const Case& c) {
      c.with_model([&](const auto& model) {
        const Adapter adapter = open_peft_adapter(c.folder / "adapter");
        const TrainingOptions options = options_of(c, adapter, 1);
        TrainedParameters trained = detail::make_trained(model, options);
        set(trained, adapter);
        DecoderGradient gradient(model, trained, options.gradient);
        InlineExecutor executor;
        const std::vector<TrainingSequence> sequences = c.sequences();
        const std::size_t count = sequences[0].learnt_count() + sequences[1].learnt_count();
        double loss = 0, only_loss = 0;
        for (const TrainingSequence& sequence : sequences) only_loss += gradient.loss(executor, sequence);
        for (const TrainingSequence& sequence : sequences) {
          loss += gradient.loss(executor, sequence, 1 / static_cast<float>(count));
        }
        CHECK(loss == only_loss);
        CHECK(loss / static_cast<double>(count) == doctest::Approx(floats(c.expected, "loss")[0]).epsilon(0.00001));
        std::size_t compared = 0;
        for_each_gradient(trained, [&](const std::string& name, const std::vector<float>& values) {
          CAPTURE(name);
          CHECK(error_of(values, floats(c.expected, name)) < 1e-4f);
          ++compared;
        });
        std::size_t all = 0;
        for (const std::string& name : c.expected.names()) all += name.starts_with("gradient.");
        CHECK(compared == all);
      });
    });
  });
}

TEST_CASE("fifty steps follow torch.optim.AdamW: losses, norms of gradients") {
  std::size_t runs = 0;
  for_each_case([&](const Case& c) {
    for (const Json& run : c.json.find("runs")->members()) {
      ++runs;
      const std::string name(run.key());
      CAPTURE(name);
      const SafetensorsFile expected = SafetensorsFile::open(c.folder / ("run_" + name + ".safetensors"));
      c.with_model([&](const auto& model) {
        const Adapter adapter = open_peft_adapter(c.folder / "run_lora_start");
        TrainingOptions options = options_of(c, adapter, 2);
        const auto number = [&](const char* key) { return run.find(key)->number(); };
        options.rate = number("rate");
        options.decay = number("decay");
        options.clip = number("clip");
        options.schedule = {50, 5};
        options.rows = run.find("rate_rows") != nullptr;
        if (options.rows) options.row_rate = number("rate_rows");
        std::erase(options.weights, Parameter::ple_context_projection);
        if (!options.rows) options.weights.clear();
        Trainer trainer(model, options);
        set(trainer.trained(), adapter);
        ThreadPool pool(2);
        const std::vector<float> losses = floats(expected, "losses"), norms = floats(expected, "norms");
        REQUIRE(losses.size() == 50);
        for (std::size_t i = 0; i < losses.size(); ++i) {
          CAPTURE(i);
          const TrainingStep step = trainer.step(pool, c.sequences());
          CHECK(std::abs(step.loss - static_cast<double>(losses[i])) < 1e-4);
          CHECK(step.gradient_norm == doctest::Approx(norms[i]).epsilon(0.001));
        }
        CHECK(std::abs(trainer.evaluate(pool, c.sequences()) - static_cast<double>(floats(expected, "final_loss")[0])) <
              1e-4);
      });
    }
  });
  CHECK(runs == 4);
}

TEST_CASE("bits depend neither on threads nor on memory for activations; packed texts are those alone") {
  const Case c(golden / "e2b_like");
  const Adapter adapter = open_peft_adapter(c.folder / "adapter");
  c.with_model([&](const auto& model) {
    const auto gradients = [&](std::size_t threads, std::uint64_t budget, std::span<const TrainingSequence> sequences) {
      TrainingOptions options = options_of(c, adapter, threads);
      options.gradient.activation_budget = budget;
      TrainedParameters trained = detail::make_trained(model, options);
      set(trained, adapter);
      DecoderGradient gradient(model, trained, options.gradient);
      ThreadPool pool(threads);
      std::vector<float> all;
      for (const TrainingSequence& sequence : sequences) {
        all.push_back(static_cast<float>(gradient.loss(pool, sequence, 0.125f)));
      }
      for_each_gradient(trained, [&](const std::string&, const std::vector<float>& values) {
        all.insert(all.end(), values.begin(), values.end());
      });
      return all;
    };
    const std::vector<TrainingSequence> sequences = c.sequences();
    const std::vector<float> expected = gradients(1, 0, sequences);
    for (const std::size_t threads : {1, 2, 3}) {
      for (const std::uint64_t budget : {std::uint64_t{0}, std::uint64_t{200000}, std::uint64_t{1} << 30}) {
        CHECK(gradients(threads, budget, sequences) == expected);
      }
    }
    std::vector<Token> tokens = c.tokens[0];
    std::vector<std::uint8_t> learnt = c.learnt[0];
    tokens.insert(tokens.end(), c.tokens[1].begin(), c.tokens[1].end());
    learnt.insert(learnt.end(), c.learnt[1].begin(), c.learnt[1].end());
    const std::size_t begins[] = {0, c.tokens[0].size()};
    const TrainingSequence packed{tokens, learnt, begins};
    std::vector<float> together = gradients(2, 0, std::span(&packed, 1)), apart = expected;
    CHECK(together[0] == doctest::Approx(apart[0] + apart[1]));
    together.erase(together.begin());
    apart.erase(apart.begin(), apart.begin() + 2);
    CHECK(error_of(together, apart) < 1e-5f);
  });
}

TEST_CASE("of given rows alone: the gradients of a run of all, and no other row is trained") {
  const Case c(golden / "e2b_like");
  c.with_model([&](const auto& model) {
    const auto gradients = [&](const std::vector<RowId>& only_rows) {
      const TrainingOptions options{
          .adapters = {}, .rows = true, .only_rows = only_rows, .gradient = {.max_tokens = 32, .threads = 1}};
      TrainedParameters trained = detail::make_trained(model, options);
      DecoderGradient gradient(model, trained, options.gradient);
      InlineExecutor executor;
      for (const TrainingSequence& sequence : c.sequences()) gradient.loss(executor, sequence, 0.125f);
      return trained.rows;
    };
    const auto all = gradients({});
    const auto row = static_cast<RowId>(c.tokens[0][3]), other = static_cast<RowId>(c.tokens[1][5]);
    RowId absent = 0;
    while (all.count(absent) > 0) ++absent;
    REQUIRE(row != other);
    REQUIRE(absent < model.table.rows());
    const auto some = gradients({other, absent, row, other});
    CHECK(some.size() == 2);
    for (const RowId id : {row, other}) {
      CAPTURE(id);
      REQUIRE(some.count(id) == 1);
      CHECK(some.at(id).gradient == all.at(id).gradient);
      CHECK(some.at(id).values == all.at(id).values);
    }
    CHECK(gradients({absent}).empty());

    TrainingOptions options{
        .adapters = {}, .rows = true, .only_rows = {row}, .gradient = {.max_tokens = 32, .threads = 1}};
    Trainer trainer(model, options);
    InlineExecutor executor;
    trainer.step(executor, c.sequences());
    REQUIRE(trainer.trained().rows.size() == 1);
    CHECK(trainer.trained().rows.at(row).values != all.at(row).values);

    const auto refused = [&](const std::string& part) {
      std::string message = "no error";
      try {
        Trainer wrong(model, options);
      } catch (const Error& error) {
        message = error.what();
      }
      CAPTURE(message);
      CHECK(message.find(part) != message.npos);
    };
    const double rate = trainer.options().row_rate;
    options.row_share = 1;
    CHECK(Trainer(model, options).options().row_rate == doctest::Approx(100 * rate));

    options.only_rows.push_back(model.table.rows());
    refused("only_rows has row " + std::to_string(model.table.rows()));
    options.rows = false;
    refused("only_rows, but rows is false");
  });
}

// Not of 16-bit types: the reference rounds the embedding's scale to them.
TEST_CASE("weights in blocks, repacked or as in the file, give the bits of their values in f32") {
  const Checkpoint checkpoint = Checkpoint::open(std::filesystem::path(PLE_TEST_DATA) / "golden" / "e4b_like");
  const std::vector<Token> tokens = {2, 5, 7, 9, 11, 5, 3, 8};
  const std::vector<std::uint8_t> learnt(tokens.size(), 1);
  const TrainingSequence sequence{tokens, learnt};
  const auto gradients = [&](Dtype dtype, bool decoded, WeightStorage storage) {
    const auto model =
        Gemma4<Any, Backend>::load(testing::Requantized{checkpoint, dtype, decoded}, {.weights = storage});
    const TrainingOptions options{.rank = 3, .rows = true, .gradient = {.max_tokens = 8, .threads = 2}};
    TrainedParameters trained = detail::make_trained(model, options);
    for (auto& entry : trained.adapters) {  // B is not 0: A's gradient is not, either
      for (std::size_t i = 0; i < entry.second.b.values.size(); ++i) {
        entry.second.b.values[i] = 0.01f * static_cast<float>(i % 7);
      }
    }
    DecoderGradient gradient(model, trained, options.gradient);
    ThreadPool pool(2);
    std::vector<float> all = {static_cast<float>(gradient.loss(pool, sequence, 0.125f))};
    for_each_gradient(trained, [&](const std::string&, const std::vector<float>& values) {
      all.insert(all.end(), values.begin(), values.end());
    });
    return all;
  };
  for (const Dtype dtype : {Dtype::q8_0, Dtype::q4_0, Dtype::q5_1}) {
    const std::string name(name_of(dtype));
    CAPTURE(name);
    const std::vector<float> expected = gradients(dtype, true, WeightStorage::mapped);
    CHECK(gradients(dtype, false, WeightStorage::mapped) == expected);
    CHECK(gradients(dtype, false, WeightStorage::repacked) == expected);
  }
}

TEST_CASE("a schedule rises, then falls as a cosine; without one the rate stays") {
  const CosineSchedule schedule{.steps = 10, .warm_up = 2};
  CHECK(schedule.factor(0) == 0.5);
  CHECK(schedule.factor(1) == 1);
  CHECK(schedule.factor(2) == 1);
  CHECK(schedule.factor(6) == doctest::Approx(0.5));
  CHECK(schedule.factor(10) == 0);
  for (const std::uint64_t step : {0, 1, 1000}) CHECK(CosineSchedule{}.factor(step) == 1);
}

}  // namespace ple::gradient_test
