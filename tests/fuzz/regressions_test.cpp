// SPDX-License-Identifier: Apache-2.0
// What fuzzing once found, and the seeds it began with, through the same harnesses. See scripts/fuzz.
#include <doctest/doctest.h>

#include <algorithm>
#include <iterator>

#include "../allocations.h"
#include "targets.h"

namespace ple::fuzz_test {

namespace {

/// Lets nothing out, and does not take more memory in all than an input may have at a time.
void check(const fuzz::Target& target, const std::string& data) {
  const std::size_t before = testing::allocated_bytes();
  CHECK_NOTHROW(target.run(data));
  CHECK(testing::allocated_bytes() - before < fuzz::most_bytes);
}

}  // namespace

TEST_CASE("every harness takes its seeds and everything in regressions/") {
  const std::filesystem::path regressions = std::filesystem::path(PLE_TEST_DATA).parent_path() / "fuzz" / "regressions";
  for (const auto& target : ple::fuzz::targets) {
    CAPTURE(target.name);
    for (const std::string& seed : target.seeds()) check(target, seed);
    check(target, "");
    const auto folder = regressions / target.name;
    if (!std::filesystem::exists(folder)) continue;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      CAPTURE(entry.path().string());
      std::ifstream in(entry.path(), std::ios::binary);
      const std::string data(std::istreambuf_iterator<char>(in), {});
      check(target, data);
    }
  }
  // A folder of regressions that no harness replays would be worth nothing.
  for (const auto& entry : std::filesystem::directory_iterator(regressions)) {
    if (!entry.is_directory()) continue;
    CHECK(std::any_of(std::begin(ple::fuzz::targets), std::end(ple::fuzz::targets),
                      [&](const auto& target) { return target.name == entry.path().filename(); }));
  }
}

TEST_CASE("the seeds are what they are meant to be: valid") {
  using namespace ple;
  const testing::TemporaryFolder folder;
  CHECK_NOTHROW(fuzz::use(fuzz::valid_folder().path()));
  const auto gguf = fuzz::gguf_seeds();
  for (std::size_t i = 0; i < 2; ++i) CHECK_NOTHROW(fuzz::use(fuzz::write_input(folder, "model.gguf", gguf[i])));
  for (std::size_t i = 1; i < 3; ++i) CHECK_NOTHROW(open_tokenizer(fuzz::write_input(folder, "model.gguf", gguf[i])));
  for (const std::string& seed : gguf) CHECK_NOTHROW(GgufFile::open(fuzz::write_input(folder, "model.gguf", seed)));
  for (const std::string& seed : fuzz::safetensors_seeds())
    CHECK_NOTHROW(SafetensorsFile::open(fuzz::write_input(folder, "model.safetensors", seed)));
  for (const std::string& seed : fuzz::packed_table_seeds())
    CHECK_NOTHROW(fuzz::use(fuzz::valid_folder().path(), {.table = fuzz::write_input(folder, "table", seed)}));
  for (const std::string& seed : fuzz::tokenizer_json_seeds()) CHECK_NOTHROW(Tokenizer::parse(seed, "tokenizer.json"));
  const auto datasets = fuzz::dataset_seeds();
  for (std::size_t i = 0; i < 2; ++i) {
    const auto file = fuzz::write_input(folder, "data.jsonl", datasets[i]);
    CHECK_NOTHROW(read_dataset(file, fuzz::shipped_tokenizer(), ChatFormat()));
  }
  for (const std::string& seed : fuzz::peft_adapter_seeds()) {
    fuzz::write_input(folder, "adapter_config.json", seed.substr(0, seed.find('\n')));
    fuzz::write_input(folder, "adapter_model.safetensors", seed.substr(seed.find('\n') + 1));
    CHECK_NOTHROW(open_peft_adapter(folder / ""));
  }
  InlineExecutor executor;
  Session session(fuzz::valid_model(), {.context = 16, .chunk = 4, .executor = &executor});
  for (const std::string& seed : fuzz::saved_session_seeds())
    CHECK_NOTHROW(SavedSession::load(session, fuzz::write_input(folder, "session", fuzz::with_checksum(seed))));
}

}  // namespace ple::fuzz_test
