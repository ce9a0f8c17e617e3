// SPDX-License-Identifier: Apache-2.0
// Training on a table of a lower rank: what is learnt are whole rows.
#include "../chosen_backend.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../temporary.h"
#include "ple/checkpoint/checkpoint.h"
#include "ple/convert/pack_table.h"
#include "ple/core/thread_pool.h"
#include "ple/family/gemma4/block.h"
#include "ple/table/streamed.h"
#include "ple/train/trainer.h"

namespace ple::ranked_rows_test {

namespace {

using Model = Gemma4<Any, testing::ChosenBackend>;
const std::filesystem::path folder = std::filesystem::path(PLE_TEST_DATA) / "golden" / "e2b_like";

std::vector<float> stored_row(const Model& model, RowId id) {
  std::vector<float> row(model.table.cols());
  InlineExecutor executor;
  RowSelection selection = model.table.make_selection(1);
  selection.ids.assign(1, id);
  model.table.gather_stored({executor}, selection, 0, 0, model.blocks.size(), {row.data(), 1, row.size(), row.size()});
  return row;
}

/// The loss of a sequence, and everything that is trained after a step on it.
std::vector<float> step(const Model& model, const std::vector<Token>& tokens) {
  ThreadPool pool(2);
  Trainer trainer(model, {.rank = 2, .rows = true, .gradient = {.max_tokens = tokens.size(), .threads = 2}});
  const std::vector<std::uint8_t> learnt(tokens.size(), 1);
  const TrainingSequence sequence{tokens, learnt};
  std::vector<float> all = {static_cast<float>(trainer.step(pool, {&sequence, 1}).loss)};
  const auto add = [&](const auto& values) { all.insert(all.end(), values.begin(), values.end()); };
  for (const auto& [key, adapter] : trainer.trained().adapters) add(adapter.a.values), add(adapter.b.values);
  for (const auto& [id, row] : trainer.trained().rows) all.push_back(static_cast<float>(id)), add(row.values);
  return all;
}

}  // namespace

TEST_CASE("a table of a lower rank trains as the rows that it stands for, wherever it lives") {
  const testing::TemporaryFolder temporary;
  Model whole = Model::load(Checkpoint::open(folder));
  const std::size_t layers = whole.blocks.size(), p = whole.table.width();
  PackOptions options{.dtypes = std::vector<std::optional<Dtype>>(layers, Dtype::bf16), .bases = RowBases(layers)};
  for (std::size_t l = 1; l < layers; ++l) {
    AlignedVector<float> basis((1 + l % p) * p);
    for (std::size_t i = 0; i < basis.size(); ++i) basis[i] = 0.1f * (static_cast<float>((i * 7 + l) % 11) - 5);
    options.bases[l] = std::make_shared<const AlignedVector<float>>(std::move(basis));
  }
  InlineExecutor executor;
  pack_table(whole, options, temporary / "table", executor);
  const auto load = [&](const TableStorage& storage) {
    return Model::load(Checkpoint::open(folder, {.table = temporary / "table"}), {.table = storage});
  };
  const Model ranked = load(Mapped{});
  for (RowId id = 0; id < ranked.table.rows(); ++id) whole.table.set_row(id, stored_row(ranked, id));
  const std::vector<Token> tokens = {2, 5, 7, 9, 11, 5, 3, 8};
  const std::vector<float> expected = step(whole, tokens);
  CHECK(expected.size() > 7 * layers * p);
  for (const TableStorage& storage : {TableStorage(Mapped{}), TableStorage(Streamed{}), TableStorage(Resident{})}) {
    CHECK(step(load(storage), tokens) == expected);
  }
}

}  // namespace ple::ranked_rows_test
