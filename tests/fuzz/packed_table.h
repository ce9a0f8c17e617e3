// SPDX-License-Identifier: Apache-2.0
// A table that `pack` is said to have written, in place of a valid model's.
#pragma once

#include "harness.h"
#include "models.h"
#include "ple/convert/pack_table.h"

namespace ple::fuzz {

inline void packed_table(std::string_view data) {
  static const testing::TemporaryFolder folder;
  may_refuse([&] { use(valid_folder().path(), {.table = write_input(folder, "table", data)}); });
}

inline std::vector<std::string> packed_table_seeds() {
  const testing::TemporaryFolder folder;
  const auto model = Model::load(Checkpoint::open(valid_folder().path()));
  InlineExecutor executor;
  std::vector<std::string> seeds;
  const auto pack = [&](PackOptions options) {
    pack_table(model, std::move(options), folder / "table", executor);
    std::ifstream in(folder / "table", std::ios::binary);
    seeds.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  };
  pack({.dtypes = {Dtype::bf16, Dtype::bf16}});
  pack({.dtypes = {Dtype::f32, std::nullopt}});
  pack({.dtypes = {Dtype::f32, Dtype::f16}, .fold = true});
  pack({.dtypes = {Dtype::f32, Dtype::f32}, .kept = {0, 1, 2, 3, 4, 5, 9}, .substitute = 3});
  // With bases: any numbers are one.
  const std::size_t p = model.table.width();
  const auto basis = [&](std::size_t rank) { return std::make_shared<const AlignedVector<float>>(rank * p, 0.5f); };
  pack({.dtypes = {Dtype::bf16, Dtype::f32}, .bases = {basis(2), nullptr}});
  pack({.dtypes = {Dtype::f16, Dtype::bf16}, .fold = true, .bases = {basis(p), basis(1)}});
  return seeds;
}

}  // namespace ple::fuzz
