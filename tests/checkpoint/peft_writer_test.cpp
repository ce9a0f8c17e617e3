// SPDX-License-Identifier: Apache-2.0
// What is written as an adapter opens again with the same bits, and no accident loses the one that was there. That PEFT
// computes the same with it is checked by tests/reference/check_adapters_out.py.
#include "ple/checkpoint/peft_writer.h"

#include <doctest/doctest.h>

#include <signal.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "../child.h"
#include "../file_size_limit.h"
#include "../temporary.h"
#include "ple/checkpoint/peft_adapter.h"

namespace ple::peft_writer_test {

namespace {

const std::filesystem::path adapters = std::filesystem::path(PLE_TEST_DATA) / "golden_adapters";

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}

bool same(const Adapter& a, const Adapter& b) {
  bool good = a.parts().size() == b.parts().size() && a.rows().ids == b.rows().ids &&
              a.rows().width == b.rows().width && same_bits(a.rows().values, b.rows().values);
  for (std::size_t i = 0; good && i < a.parts().size(); ++i) {
    const Adapter::Part &one = a.parts()[i], &other = b.parts()[i];
    good = one.parameter == other.parameter && one.layer == other.layer && one.rank == other.rank &&
           one.in == other.in && one.out == other.out && same_bits(one.a, other.a) && same_bits(one.b, other.b);
  }
  return good && a.identity() == b.identity();
}

struct Values {
  std::vector<float> a, b;
  PeftPart part;

  explicit Values(std::size_t rank, double alpha, float value = 1) : a(rank * 3, value), b(5 * rank) {
    for (std::size_t i = 0; i < b.size(); ++i) b[i] = value * static_cast<float>(i);
    part = {.parameter = Parameter::query, .in = 3, .out = 5, .rank = rank, .alpha = alpha, .a = a, .b = b};
  }
};

void check_refused(const std::vector<PeftPart>& parts, const TrainedRows& rows, const char* why) {
  const testing::TemporaryFolder folder;
  CHECK_THROWS_WITH_AS(write_peft_adapter(folder / "x", parts, rows), doctest::Contains(why), Error);
  CHECK(folder.names().empty());
}

}  // namespace

TEST_CASE("every golden adapter, written and opened again, has the same bits") {
  const testing::TemporaryFolder temporary;
  const char* const wanted = std::getenv("PLE_ADAPTERS_OUT");  // of check_adapters_out.py
  const std::filesystem::path out = wanted ? std::filesystem::path(wanted) : temporary / "";
  std::size_t with_rows = 0;
  for (const auto& entry : std::filesystem::directory_iterator(adapters)) {
    const std::string name = entry.path().filename().string();
    CAPTURE(name);
    const Adapter adapter = open_peft_adapter(entry.path());
    const Json config = read_json_file(entry.path() / "adapter_config.json");
    const std::string base(config.find("base_model_name_or_path")->text());
    write_peft_adapter(out / name, adapter, peft_base(entry.path().parent_path() / base));
    CHECK(same(open_peft_adapter(out / name), adapter));
    with_rows += !adapter.rows().empty();
  }
  CHECK(with_rows == 3);
}

TEST_CASE("alpha and rank may differ by part; B has the scale when it is opened") {
  const testing::TemporaryFolder folder;
  const Values first(2, 3), second(4, 0.5, -2);
  std::vector<PeftPart> parts = {first.part, second.part, second.part};
  parts[1].layer = 11;
  parts[2].layer = 1;
  parts[2].alpha = 3;
  write_peft_adapter(folder / "x", parts);
  const Adapter adapter = open_peft_adapter(folder / "x");
  REQUIRE(adapter.parts().size() == 3);
  for (const Adapter::Part& part : adapter.parts()) {
    const Values& of = part.layer == 0 ? first : second;
    const float scale = part.layer == 0 ? 1.5f : part.layer == 11 ? 0.125f : 0.75f;
    CHECK(same_bits(part.a, of.a));
    for (std::size_t o = 0; o < part.out; ++o) {
      for (std::size_t r = 0; r < part.rank; ++r) CHECK(part.b[r * 5 + o] == scale * of.b[o * part.rank + r]);
    }
  }
  CHECK(folder.names() == std::vector<std::string>{"x"});
}

TEST_CASE("a base with vision has its text model's names under language_model") {
  const std::filesystem::path golden = std::filesystem::path(PLE_TEST_DATA) / "golden";
  CHECK(peft_base(golden / "e2b_like").text_model == "model.");
  CHECK(peft_base(golden / "nested").text_model == "model.language_model.");
  CHECK(peft_base("some/model.gguf").text_model == "model.");
  CHECK(peft_base("some/model.gguf").name == "some/model.gguf");
}

TEST_CASE("what is no adapter is not written, and the message says why") {
  const Values values(2, 2);
  TrainedRows rows{.ids = {3, 3}, .width = 2};
  rows.values.resize(4);
  check_refused({}, {}, "without parts and rows");
  check_refused({values.part, values.part}, {}, "model.layers.0.self_attn.q_proj: is given twice");
  check_refused({}, rows, "id 3 follows 3");
  PeftPart part = values.part;
  part.rank = 1;
  check_refused({part}, {}, "A has 6 values and B 10, expected [1, 3] and [5, 1]");
  part = values.part;
  part.parameter = Parameter::final_norm;
  check_refused({part}, {}, "cannot be adapted");
  part = values.part;
  part.alpha = NAN;
  check_refused({part}, {}, "alpha is nan");
  const Values infinite(2, 2, INFINITY);
  check_refused({infinite.part}, {}, "not finite");
}

TEST_CASE("a full disk leaves the earlier adapter, and nothing else") {
  const testing::TemporaryFolder folder;
  const Values first(2, 3), second(4, 8);
  write_peft_adapter(folder / "x", {{first.part}});
  const Adapter before = open_peft_adapter(folder / "x");
  for (const PeftPart& part : {second.part, first.part}) {  // with another configuration, and with the same
    {
      const testing::FileSizeLimit full(4100);  // of which the header takes 4096
      CHECK_THROWS_AS(write_peft_adapter(folder / "x", {{part}}), Error);
    }
    CHECK(same(open_peft_adapter(folder / "x"), before));
    std::size_t files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder / "x")) files += entry.exists();
    CHECK(files == 2);
  }
  write_peft_adapter(folder / "x", {{second.part}});
  CHECK(open_peft_adapter(folder / "x").parts()[0].rank == 4);
}

TEST_CASE("a killed writer leaves an adapter whole, under its own name or another, and never parts of two") {
  const testing::TemporaryFolder folder;
  const Values first(2, 3), second(2, 5, -1);  // that differ in alpha: the files' shapes would not tell
  const std::filesystem::path x = folder / "x";
  write_peft_adapter(x, {{first.part}});
  const Adapter one = open_peft_adapter(x);
  write_peft_adapter(folder / "y", {{second.part}});
  const Adapter two = open_peft_adapter(folder / "y");
  // The adapter of the files that end so, if they are there and whole.
  const auto opened = [&](const std::string& end) -> std::optional<Adapter> {
    const std::filesystem::path copy = folder / "copy";
    std::filesystem::remove_all(copy);
    std::filesystem::create_directory(copy);
    for (const std::string name : {"adapter_config.json", "adapter_model.safetensors"}) {
      std::filesystem::path from = x / (name + end);
      if (!std::filesystem::exists(from)) from = x / name;
      if (!std::filesystem::exists(from)) return std::nullopt;
      std::filesystem::copy_file(from, copy / name);
    }
    return open_peft_adapter(copy);
  };
  const auto is_one_of_both = [&](const std::optional<Adapter>& a) { return a && (same(*a, one) || same(*a, two)); };
  for (int round = 0; round < 20; ++round) {
    CAPTURE(round);
    const ::pid_t child = ::fork();
    if (child == 0) {
      ::alarm(60);
      for (;;) {
        write_peft_adapter(x, {{second.part}});
        write_peft_adapter(x, {{first.part}});
      }
    }
    ::usleep(static_cast<::useconds_t>(1500 + 777 * round));
    ::kill(child, SIGKILL);
    testing::status_of(child);
    if (std::filesystem::exists(x / "adapter_config.json")) {
      CHECK(is_one_of_both(open_peft_adapter(x)));
    } else {
      CHECK((is_one_of_both(opened(".old")) || is_one_of_both(opened(".new"))));
      CHECK_THROWS_AS(open_peft_adapter(x), Error);
    }
    write_peft_adapter(x, {{first.part}});  // goes on from there
    CHECK(same(open_peft_adapter(x), one));
  }
}

TEST_CASE("an adapter whose replacement was killed says so") {
  const testing::TemporaryFolder folder;
  const Values values(2, 3);
  write_peft_adapter(folder / "", {{values.part}});
  std::filesystem::rename(folder / "adapter_config.json", folder / "adapter_config.json.old");
  CHECK_THROWS_WITH_AS(open_peft_adapter(folder / ""), doctest::Contains("files end in .old"), Error);
}

}  // namespace ple::peft_writer_test
