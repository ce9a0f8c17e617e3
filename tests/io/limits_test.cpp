// SPDX-License-Identifier: Apache-2.0
// A program's own limits: what goes over them is refused before it takes anything.
#include "ple/io/limits.h"

#include <doctest/doctest.h>

#include <string>

#include "folder.h"
#include "gguf_model.h"
#include "ple/io/checkpoint.h"
#include "ple/io/pack_table.h"
#include "ple/run/session.h"

namespace ple::limits_test {

using ple::testing::Folder;

namespace {

using Model = Gemma4<Any, Scalar>;

std::string refused(auto&& f) {
  try {
    f();
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::limit);
    return error.what();
  }
  return "no error";
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("the largest file") {
  Folder folder;
  folder.write();
  const std::uint64_t size = std::filesystem::file_size(folder.model());
  const auto open = [&](const std::filesystem::path& path, std::uint64_t most, const std::string& table = "") {
    return refused([&] { Checkpoint::open(path, {.table = table, .limits = {.file_bytes = most}}); });
  };
  CHECK(open(folder.path(), size) == "no error");
  CHECK(has(open(folder.path(), size - 1), "model.safetensors: has " + std::to_string(size) + " bytes, more than"));
  ple::testing::write_file(folder.path() / "tokenizer.json", std::string(size + 10, ' '));
  CHECK(has(open(folder.path(), size + 9), "tokenizer.json"));
  std::filesystem::remove(folder.path() / "tokenizer.json");

  const auto checkpoint = Checkpoint::open(folder.path());
  const auto table = folder.path() / "table";
  InlineExecutor executor;
  pack_table(Model::load(checkpoint), {.dtypes = {Dtype::f32, Dtype::f32}, .kept = {1, 2}}, table, executor);
  std::filesystem::resize_file(table, size + 1);  // it is not even opened
  CHECK(has(open(folder.path(), size, table.string()), "table: has "));

  // A GGUF file, alone and in parts: all of them count, whichever is opened.
  const std::string gguf = ple::testing::gguf_of(checkpoint).bytes();
  ple::testing::write_file(folder.path() / "model.gguf", gguf);
  CHECK(open(folder.path() / "model.gguf", gguf.size()) == "no error");
  CHECK(has(open(folder.path() / "model.gguf", gguf.size() - 1), "model.gguf: has "));
  ple::testing::write_file(folder.path() / "m-00001-of-00002.gguf", "GGUF");
  ple::testing::write_file(folder.path() / "m-00002-of-00002.gguf", gguf);
  CHECK(has(open(folder.path() / "m-00001-of-00002.gguf", gguf.size() - 1), "m-00002-of-00002.gguf: has "));
}

TEST_CASE("the largest vocabulary") {
  Folder folder;
  folder.write();
  const auto open = [&](std::size_t most) {
    return refused([&] { Checkpoint::open(folder.path(), {.limits = {.vocab_size = most}}); });
  };
  CHECK(open(20) == "no error");
  CHECK(has(open(19), "has a vocabulary of 20, more than Limits::vocab_size, which is 19"));
}

TEST_CASE("the largest context, and what its K and V take") {
  Folder folder;
  folder.write();
  const Model model = Model::load(Checkpoint::open(folder.path()));
  InlineExecutor executor;
  const auto with = [&](std::size_t context, std::uint64_t most) {
    return refused([&] {
      Session session(model, {.context = context, .kv_cache_limit = most, .executor = &executor});
      CHECK((most == 0 || session.kv_cache_bytes() <= most));
      if (most > 0) {  // and it is no stricter than it says
        CHECK(has(refused([&] {
                    Session(
                        model,
                        {.context = context, .kv_cache_limit = session.kv_cache_bytes() - 1, .executor = &executor});
                  }),
                  "more than kv_cache_limit"));
      }
    });
  };
  CHECK(with(64, 0) == "no error");
  const std::uint64_t bytes = Session(model, {.context = 64, .executor = &executor}).kv_cache_bytes();
  CHECK(with(64, bytes) == "no error");
  CHECK(with(32, bytes) == "no error");
  CHECK(has(with(64, bytes - 1), "K and V of 64 positions take " + std::to_string(bytes) + " bytes"));
}

}  // namespace ple::limits_test
