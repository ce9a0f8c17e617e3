// SPDX-License-Identifier: Apache-2.0
// Every way in which a model folder can be wrong has its error, with file, tensor or field, and both values.
#include <doctest/doctest.h>
#include <cerrno>

#include <functional>
#include <string>
#include <vector>

#include "../comma_locale.h"
#include "folder.h"
#include "ple/checkpoint/checkpoint.h"
#include "ple/core/os.h"
#include "ple/family/gemma4/block.h"
#include "ple/run/session.h"

namespace ple::malformed_test {

using ple::testing::Folder;
using ple::testing::ordered_json;
using ple::testing::safetensors;
using ple::testing::write_file;

namespace {

constexpr const char* query = "model.layers.1.self_attn.q_proj.weight";

/// Opens and loads the folder; the error must have this code, and its message all these parts.
void check_error(const Folder& folder, ErrorCode code, const std::vector<std::string>& parts) {
  try {
    const auto model = Gemma4<Any, Simd>::load(Checkpoint::open(folder.path()));
    Session session(model, {.threads = 1});
    session.read(1);
  } catch (const Error& error) {
    const std::string message = error.what();
    CAPTURE(message);
    CHECK(error.code() == code);
    for (const std::string& part : parts) {
      CAPTURE(part);
      CHECK(message.find(part) != std::string::npos);
    }
    return;
  }
  FAIL("no error");
}

void with_header(const std::function<void(ordered_json&)>& change, ErrorCode code, std::vector<std::string> parts) {
  Folder folder;
  change(folder.header);
  folder.write();
  parts.push_back("model.safetensors");
  check_error(folder, code, parts);
}

void with_config(const std::function<void(ordered_json&)>& change, ErrorCode code, std::vector<std::string> parts) {
  Folder folder;
  change(folder.config);
  folder.write();
  parts.push_back("config.json");
  check_error(folder, code, parts);
}

}  // namespace

TEST_CASE("a whole number may be written as 10.0, as transformers takes it") {
  Folder folder;
  folder.config["num_hidden_layers"] = 2.0;
  folder.config["hidden_size"] = 8.0;
  folder.config["eos_token_id"] = {1.0, 3};
  folder.write();
  const auto checkpoint = Checkpoint::open(folder.path());
  CHECK(Gemma4<Any, Simd>::load(checkpoint).config.num_layers() == 2);
  CHECK(checkpoint.stop_tokens() == std::vector<Token>{1, 3});
  with_config([](auto& c) { c["hidden_size"] = 8.5; }, ErrorCode::config,
              {"hidden_size is 8.5, expected a whole number from 0 to"});
  with_config([](auto& c) { c["hidden_size"] = 1e30; }, ErrorCode::config, {"hidden_size is 1e+30, expected a whole"});
}

TEST_CASE("the program's locale changes no configuration") {
  Folder folder;
  folder.config["rms_norm_eps"] = 0.25;
  folder.config["rope_parameters"] = {
      {"full_attention", {{"rope_type", "proportional"}, {"partial_rotary_factor", 0.5}}}};
  folder.write();
  const ple::testing::CommaLocale locale("de_DE");
  if (!locale.works) {
    MESSAGE("left out: this system has no locale with a comma, and none can be built");
    return;
  }
  const auto config = Checkpoint::open(folder.path()).config<Gemma4Config>();
  CHECK(config.rms_norm_eps == 0.25f);
  CHECK(config.full_rope.fraction == 0.5);
  with_config([](auto& c) { c["rms_norm_eps"] = 1.5; }, ErrorCode::config, {"rms_norm_eps is 1.5, expected 0 to 1"});
}

#if defined(__linux__)
TEST_CASE("a JSON file that cannot be read is an error of the library's own") {
  // The file of this process's memory opens, but nothing lies at its beginning.
  for (const char* name : {"config.json", "model.safetensors.index.json"}) {
    Folder folder;
    folder.write();
    std::filesystem::remove(folder.path() / "model.safetensors");
    std::filesystem::remove(folder.path() / name);
    std::filesystem::create_symlink("/proc/self/mem", folder.path() / name);
    CHECK_THROWS_AS(Checkpoint::open(folder.path()), Error);
  }
}
#endif

TEST_CASE("the undamaged folder works") {
  Folder folder;
  folder.write();
  const auto model = Gemma4<Any, Simd>::load(Checkpoint::open(folder.path()));
  Session session(model, {.threads = 1});
  session.read(std::vector<Token>{2, 3, 4, 5, 6, 7});
  CHECK(session.logits().size() == 20);
}

TEST_CASE("a missing tensor, a wrong shape, an unknown dtype") {
  {
    Folder folder;  // renamed, so that its bytes still belong to a tensor
    folder.header["other"] = folder.header[query];
    folder.header.erase(query);
    folder.write();
    check_error(folder, ErrorCode::missing, {folder.path().string(), query});
  }
  {
    Folder folder;
    folder.header["other"] = folder.header["model.embed_tokens.weight"];
    folder.header.erase("model.embed_tokens.weight");
    folder.write();
    check_error(folder, ErrorCode::missing, {folder.path().string(), "model.embed_tokens.weight"});
  }
  with_header([](auto& h) { h[query]["shape"] = {8, 12}; }, ErrorCode::shape, {query, "[8, 12]", "[12, 8]"});
  with_header([](auto& h) { h[query]["shape"] = {96}; }, ErrorCode::shape, {query, "[96]", "[12, 8]"});
  with_header(
      [](auto& h) {
        h["model.norm.weight"]["shape"] = {2, 4};
      },
      ErrorCode::shape, {"model.norm.weight", "[2, 4]", "[8]"});
  with_header([](auto& h) { h["model.layers.0.layer_scalar"]["shape"] = ordered_json::array(); }, ErrorCode::shape,
              {"layer_scalar", "[]", "[1]"});
  with_header([](auto& h) { h[query]["dtype"] = "I32"; }, ErrorCode::dtype, {query, "I32", "F32, BF16 or F16"});
  with_header([](auto& h) { h[query]["dtype"] = "Q4"; }, ErrorCode::dtype, {query, "Q4"});
  with_header([](auto& h) { h[query]["dtype"] = 3; }, ErrorCode::malformed, {query, "dtype is 3"});
}

TEST_CASE("ranges that lie outside the file, overlap, overflow, or disagree with the shape") {
  const auto at = [](int i) {
    return [i](ordered_json& h) -> ordered_json& { return h[query]["data_offsets"][static_cast<std::size_t>(i)]; };
  };
  with_header([&](auto& h) { at(1)(h) = 1000000; }, ErrorCode::malformed, {query, "1000000", "truncated"});
  with_header([&](auto& h) { at(1)(h) = UINT64_MAX; }, ErrorCode::malformed, {query, "18446744073709551615"});
  with_header([&](auto& h) { at(0)(h) = 100000; }, ErrorCode::malformed, {query, "begin at 100000"});
  with_header([&](auto& h) { at(0)(h) = -4; }, ErrorCode::malformed, {query, "-4"});
  with_header([&](auto& h) { at(0)(h) = 1.5; }, ErrorCode::malformed, {query, "1.5"});
  with_header([&](auto& h) { at(0)(h) = "0"; }, ErrorCode::malformed, {query, "\"0\""});
  with_header([](auto& h) { h[query]["data_offsets"] = {0}; }, ErrorCode::malformed, {query, "1 numbers, expected 2"});
  with_header([](auto& h) { h[query]["data_offsets"] = 7; }, ErrorCode::malformed, {query, "data_offsets is 7"});
  with_header([](auto& h) { h[query].erase("data_offsets"); }, ErrorCode::malformed,
              {query, "data_offsets is missing"});
  with_header([](auto& h) { h[query] = 7; }, ErrorCode::malformed, {query, "is 7, expected an object"});
  with_header(
      [](auto& h) {
        h[query]["shape"] = {12, 7};
      },
      ErrorCode::malformed, {query, "384 bytes", "[12, 7]", "336"});
  with_header([](auto& h) { h[query]["shape"] = {1ull << 40, 1ull << 40}; }, ErrorCode::malformed, {query, "2^64"});
  with_header(
      [](auto& h) {
        h[query]["shape"] = {UINT64_MAX, 0, 2};
      },
      ErrorCode::malformed, {query, "18446744073709551615", "2^64"});
  // Another tensor's range: the first one's bytes then belong to two, and its own to none.
  with_header(
      [](auto& h) {
        h["model.layers.1.self_attn.k_proj.weight"]["data_offsets"] =
            h["model.layers.1.self_attn.v_proj.weight"]["data_offsets"];
      },
      ErrorCode::malformed, {"self_attn.", "begin at byte"});
  with_header([](auto& h) { h.erase("model.layers.1.layer_scalar"); }, ErrorCode::malformed,
              {"end at byte", "the file has"});
  with_header([](auto& h) { h.erase("model.norm.weight"); }, ErrorCode::malformed,
              {"no tensor owns the bytes between"});
}

TEST_CASE("a file that is cut short anywhere, or is something else") {
  Folder folder;
  folder.write();
  const std::string whole = safetensors(folder.header.dump(), folder.data);
  for (std::size_t size = 0; size < whole.size(); size += size < 16 ? 1 : 97) {
    write_file(folder.model(), whole.substr(0, size));
    CAPTURE(size);
    check_error(folder, ErrorCode::malformed, {"model.safetensors"});
  }
  write_file(folder.model(), whole + "x");
  check_error(folder, ErrorCode::malformed, {"end at byte", "the file has " + std::to_string(whole.size() + 1)});
  write_file(folder.model(), safetensors("[]", ""));
  check_error(folder, ErrorCode::malformed, {"the header is an array, expected an object"});
  write_file(folder.model(), safetensors(std::string(5000, '['), ""));
  check_error(folder, ErrorCode::malformed, {"nested deeper than 64"});
  write_file(folder.model(), safetensors(R"({"a":{},"a":{}})", ""));
  check_error(folder, ErrorCode::malformed, {"'a' appears twice"});
  std::string long_header = whole;
  long_header[7] = '\x7f';
  write_file(folder.model(), long_header);
  check_error(folder, ErrorCode::malformed, {"the header's length is 9", "bytes follow"});
}

TEST_CASE("a folder without its files") {
  Folder folder;
  check_error(folder, ErrorCode::missing, {folder.path().string(), "config.json is missing"});
  write_file(folder.path() / "config.json", folder.config.dump());
  check_error(folder, ErrorCode::missing, {"neither model.safetensors nor model.safetensors.index.json"});
  std::filesystem::create_directory(folder.model());
  check_error(folder, ErrorCode::file, {"model.safetensors", "not a regular file"});
  const auto message = [](const char* path) {
    try {
      Checkpoint::open(path);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  CHECK(message("/no/such/folder")
            .starts_with("/no/such/folder: no such file or folder: expected a Hugging Face folder"));
  CHECK(message("model.gguf") == "model.gguf: cannot open: " + os::text_of(ENOENT));
}

TEST_CASE("shards: an index that points nowhere, outside the folder, or to a file without the tensor") {
  const auto index = [](const std::string& file) {
    return ordered_json{{"weight_map", {{"model.embed_tokens.weight", file}}}}.dump();
  };
  Folder folder;
  folder.write();
  const auto path = folder.path() / "model.safetensors.index.json";
  const auto shard = folder.path() / "model-1.safetensors";
  std::filesystem::rename(folder.model(), shard);
  for (const char* file : {"../model-1.safetensors", "/etc/passwd", "a/b.safetensors", "..", ""}) {
    write_file(path, index(file));
    check_error(folder, ErrorCode::malformed,
                {"index.json", "model.embed_tokens.weight", "\"" + std::string(file) + "\""});
  }
  write_file(path, index("model-2.safetensors"));
  check_error(folder, ErrorCode::file, {"model-2.safetensors", "cannot open"});
  write_file(path, R"({"weight_map":{}})");
  check_error(folder, ErrorCode::missing, {"neither model.safetensors nor"});
  write_file(path, R"({"weight_map":7})");
  check_error(folder, ErrorCode::config, {"weight_map is 7, expected an object"});
  write_file(path, "{}");
  check_error(folder, ErrorCode::malformed, {"weight_map is missing"});
}

TEST_CASE("a configuration that is no configuration") {
  Folder folder;
  folder.write();
  for (const char* text : {"", "{", "[]", "3", "{\"a\":1,\"a\":2}"}) {
    CAPTURE(text);
    write_file(folder.path() / "config.json", text);
    try {
      Checkpoint::open(folder.path());
      FAIL("no error");
    } catch (const Error& error) {
      CHECK(std::string(error.what()).find("config.json") != std::string::npos);
    }
  }
}

TEST_CASE("fields out of range, of the wrong type, or contradicting each other") {
  const ErrorCode config = ErrorCode::config;
  const auto set = [](const char* field, ordered_json value) {
    return [field, value](ordered_json& c) { c[field] = value; };
  };
  with_config(set("vocab_size", 0), config, {"vocab_size is 0", "1 to"});
  with_config(set("vocab_size", -1), config, {"vocab_size is -1"});
  with_config(set("vocab_size", 1ull << 40), config, {"vocab_size is 1099511627776"});
  with_config(set("vocab_size", "20"), config, {"vocab_size is \"20\""});
  with_config(set("hidden_size", 1e30), config, {"hidden_size is 1"});
  with_config(set("hidden_size", 8.5), config, {"hidden_size is 8.5"});
  with_config(set("hidden_size", 0), config, {"hidden_size is 0"});
  with_config(set("num_hidden_layers", 0), config, {"num_hidden_layers is 0"});
  with_config(set("num_hidden_layers", 1000000), config, {"num_hidden_layers is 1000000"});
  with_config(set("num_hidden_layers", 3), config, {"layer_types has 2 entries", "which is 3"});
  with_config(set("num_attention_heads", 0), config, {"num_attention_heads is 0"});
  with_config(set("num_key_value_heads", 0), config, {"num_key_value_heads is 0"});
  with_config(set("num_key_value_heads", 3), config, {"num_key_value_heads is 3"});
  with_config(set("head_dim", 5), config, {"head_dim is 5, expected an even number"});
  with_config(set("head_dim", 0), config, {"head_dim is 0"});
  with_config(set("global_head_dim", 100000), config, {"head_dim is 100000"});
  with_config(set("num_kv_shared_layers", 2), config, {"num_kv_shared_layers is 2", "which is 2"});
  with_config(set("num_kv_shared_layers", 1), config, {"layer 1", "none of the 1 layers"});
  with_config(set("sliding_window", 0), config, {"sliding_window is 0"});
  with_config(set("max_position_embeddings", 0), config, {"max_position_embeddings is 0"});
  with_config(set("intermediate_size", 0), config, {"intermediate_size is 0"});
  with_config(set("hidden_size_per_layer_input", 100000), config, {"hidden_size_per_layer_input is 100000"});
  with_config(set("vocab_size_per_layer_input", 0), config, {"vocab_size_per_layer_input is 0"});
  with_config(set("pad_token_id", 20), config, {"pad_token_id is 20", "0 to 19"});
  with_config(set("pad_token_id", -1), config, {"pad_token_id is -1", "0 to 19"});
  with_config(set("rms_norm_eps", -1), config, {"rms_norm_eps is -1"});
  with_config(set("rms_norm_eps", "small"), config, {"rms_norm_eps is \"small\", expected a number"});
  with_config(set("final_logit_softcapping", -30), config, {"final_logit_softcapping is -30"});
  with_config(set("layer_types", "sliding"), config, {"layer_types is \"sliding\""});
  with_config(set("layer_types", {"sliding_attention", "linear_attention"}), config, {"linear_attention"});
  with_config(set("layer_types", {1, 2}), config, {"layer_types is 1"});
  with_config(set("attention_k_eq_v", "no"), config, {"attention_k_eq_v is \"no\", expected true or false"});
  with_config(set("eos_token_id", 20), config, {"eos_token_id is 20", "0 to 19"});
  with_config(set("eos_token_id", {1, -2}), config, {"eos_token_id is -2"});
  with_config(set("per_layer_config", {{"2", {{"head_dim", 6}}}}), config, {"per_layer_config", "'2'", "0 to 1"});
  with_config(set("per_layer_config", {{"x", {{"head_dim", 6}}}}), config, {"per_layer_config", "'x'"});
  with_config(set("per_layer_config", {{"1", 7}}), config, {"per_layer_config.1", "is 7"});
  with_config(set("rope_parameters", {{"full_attention", {{"rope_theta", 0}, {"rope_type", "default"}}}}), config,
              {"rope_theta is 0"});
  with_config(set("rope_parameters", 3), config, {"rope_parameters", "is 3"});
  const auto experts = [&](ordered_json number, ordered_json used, ordered_json width) {
    return [=](ordered_json& c) {
      c["enable_moe_block"] = true;
      c["num_experts"] = number;
      c["top_k_experts"] = used;
      c["moe_intermediate_size"] = width;
    };
  };
  with_config(experts(nullptr, 2, 4), config, {"num_experts is missing"});
  with_config(experts(4, nullptr, 4), config, {"top_k_experts is missing"});
  with_config(experts(4, 2, nullptr), config, {"moe_intermediate_size is missing"});
  with_config(experts(0, 2, 4), config, {"num_experts is 0, expected 1 to 4096"});
  with_config(experts(5000, 2, 4), config, {"num_experts is 5000, expected 1 to 4096"});
  with_config(experts(4, 5, 4), config, {"top_k_experts is 5, expected 1 to 4"});
  with_config(experts(4, 0, 4), config, {"top_k_experts is 0, expected 1 to 4"});
  with_config(experts(4, 2, 0), config, {"moe_intermediate_size is 0, expected 1 to 65536"});
  with_config(experts(4, 2, "wide"), config, {"moe_intermediate_size is \"wide\""});
}

TEST_CASE("what a later version may support says so") {
  const ErrorCode code = ErrorCode::not_supported;
  const auto set = [](const char* field, ordered_json value) {
    return [field, value](ordered_json& c) { c[field] = value; };
  };
  with_config(set("model_type", "llama"), code, {"llama", "gemma4"});
  with_config([](auto& c) { c.erase("model_type"); }, code, {"model_type is ''"});
  with_config(set("attention_bias", true), code, {"attention_bias"});
  with_config(set("hidden_activation", "silu"), code, {"hidden_activation", "silu"});
  with_config(set("use_bidirectional_attention", "all"), code, {"use_bidirectional_attention"});
  with_config(set("rope_parameters", {{"full_attention", {{"rope_theta", 10000}, {"rope_type", "yarn"}}}}), code,
              {"rope_type", "yarn"});
}

}  // namespace ple::malformed_test
