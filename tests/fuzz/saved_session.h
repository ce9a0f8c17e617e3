// SPDX-License-Identifier: Apache-2.0
// A saved session, with the checksum that belongs to its bytes: without it nothing else would be looked at.
#pragma once

#include "harness.h"
#include "models.h"
#include "ple/run/saved_session.h"

namespace ple::fuzz {

inline const Model& valid_model() {
  static const Model model = Model::load(Checkpoint::open(valid_folder().path()));
  return model;
}

inline std::string with_checksum(std::string_view data) {
  Checksum sum;
  sum.add(std::as_bytes(std::span(data)));
  const std::uint64_t value = sum.value();
  return std::string(data).append(reinterpret_cast<const char*>(&value), sizeof value);
}

inline void saved_session(std::string_view data) {
  static const testing::TemporaryFolder folder;
  InlineExecutor executor;
  Session session(valid_model(), {.context = 16, .chunk = 4, .executor = &executor});
  may_refuse([&] { SavedSession::load(session, write_input(folder, "session", with_checksum(data))); });
  require(session.position() == session.tokens().size(), "a session with another number of tokens than positions");
  if (session.position() < session.context()) session.read(1);
}

inline std::vector<std::string> saved_session_seeds() {
  const testing::TemporaryFolder folder;
  InlineExecutor executor;
  Session session(valid_model(), {.context = 16, .chunk = 4, .executor = &executor});
  std::vector<std::string> seeds;
  for (const Token token : {2, 3, 4, 5, 6, 7}) {
    SavedSession::save(session, folder / "session");
    std::ifstream in(folder / "session", std::ios::binary);
    seeds.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
    seeds.back().resize(seeds.back().size() - sizeof(std::uint64_t));
    session.read(token);
  }
  return seeds;
}

}  // namespace ple::fuzz
