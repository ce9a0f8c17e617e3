// SPDX-License-Identifier: Apache-2.0
// A session in a file, a stream or memory, to go on later or elsewhere with the same bits: its tokens, the logits that
// follow, K and V. Little-endian, in this order:
//   SavedHeader
//   i32 tokens [position]
//   f32 logits [logits]
//   K and V    [cache_bytes], as ModelState::for_each_cached gives them
//   u64        checksum (core/checksum.h) of everything before it
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <istream>
#include <ostream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ple/core/checked_writer.h"
#include "ple/core/checksum.h"
#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/file.h"
#include "ple/core/token.h"
#include "ple/run/session.h"

namespace ple::inline PLE_ABI {

struct SavedHeader {
  std::array<char, 8> magic = {'p', 'l', 'e', ' ', 's', 'e', 's', '1'};
  std::array<char, 8> cache_type = {};  ///< "f32", filled up with zeros
  std::uint64_t model = 0;              ///< LanguageModel::identity()
  std::uint64_t position = 0;
  std::uint64_t logits = 0;  ///< the vocabulary's size, or 0 if the last prompt was not finished
  std::uint64_t cache_bytes = 0;
};
static_assert(sizeof(SavedHeader) == 48);

class SavedSession {
 public:
  /// Writes the session to `path`, replacing a file only after all was read back. Errors: those of check_output_path
  /// and LanguageModel::identity; ErrorCode::file, with an older file still there. A Sampler's draws are not saved.
  static void save(const Session& session, const std::filesystem::path& path) {
    const SavedHeader header = header_of(session);
    CheckedWriter writer(path, session.model_->files());
    write(session, header, [&](std::span<const std::byte> bytes) { writer.write(bytes.data(), bytes.size()); });
    writer.finish({});
  }

  /// The same bytes in memory. Errors: those of LanguageModel::identity; std::bad_alloc.
  static std::vector<std::byte> save(const Session& session) {
    const SavedHeader header = header_of(session);
    std::vector<std::byte> all;
    all.reserve(static_cast<std::size_t>(bytes_before_cache(header) + header.cache_bytes + sizeof(std::uint64_t)));
    write(session, header,
          [&](std::span<const std::byte> bytes) { all.insert(all.end(), bytes.begin(), bytes.end()); });
    return all;
  }

  /// The same bytes to a binary stream. Errors: ErrorCode::file if it takes no more; those of LanguageModel::identity.
  static void save(const Session& session, std::ostream& stream) {
    write(session, header_of(session), [&](std::span<const std::byte> bytes) {
      stream.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    });
    if (!stream.flush()) fail(ErrorCode::file, "a session cannot be written to its stream");
  }

  /// Puts the session where the saved one was. Context, chunk and threads may differ. All logits have the bits they
  /// would have had without a break, on a CPU with the same vectors. Errors, with the session unchanged:
  /// ErrorCode::file; malformed for a damaged or other file; argument for another model or type of K and V, or a
  /// context too short. The session is empty if a wrong file has a right checksum, or if reading the file again fails.
  static void load(Session& session, const std::filesystem::path& path) { load_from(session, *InputFile::open(path)); }

  /// As above, from bytes that save() gave.
  static void load(Session& session, std::span<const std::byte> bytes) { load_from(session, Memory{bytes}); }

  /// As above, from a stream, which is read to the session's last byte and no further. Memory holds it until its
  /// checksum is right: no more than the session's K and V, whatever the header says.
  static void load(Session& session, std::istream& stream) {
    std::vector<std::byte> all;
    SavedHeader header;
    const auto read_to = [&](std::uint64_t size) {
      const std::size_t before = all.size();
      all.resize(static_cast<std::size_t>(size));
      stream.read(reinterpret_cast<char*>(all.data() + before), static_cast<std::streamsize>(all.size() - before));
      all.resize(before + static_cast<std::size_t>(stream.gcount()));
    };
    read_to(sizeof header);
    if (all.size() == sizeof header) {
      std::memcpy(&header, all.data(), sizeof header);
      check(Memory{all, "a stream"}, header, session);
      read_to(bytes_before_cache(header) + header.cache_bytes + sizeof(std::uint64_t));
    }
    load_from(session, Memory{all, "a stream"});
  }

 private:
  /// Bytes with a File's functions for reading.
  struct Memory {
    std::span<const std::byte> bytes;
    const char* what = "a saved session in memory";

    std::string name() const { return what; }
    std::uint64_t size() const { return bytes.size(); }
    /// [offset, offset + into.size()) must be within size().
    void read_all(std::uint64_t offset, std::span<std::byte> into, const std::string& /*what*/) const {
      const auto part = bytes.subspan(static_cast<std::size_t>(offset), into.size());
      std::copy(part.begin(), part.end(), into.begin());
    }
  };

  template <class Write>
  static void write(const Session& session, const SavedHeader& header, Write&& write_bytes) {
    Checksum checksum;
    const auto write = [&](std::span<const std::byte> bytes) {
      write_bytes(bytes);
      checksum.add(bytes);
    };
    write(std::as_bytes(std::span(&header, 1)));
    write(std::as_bytes(session.tokens()));
    write(std::as_bytes(std::span(session.logits_).first(static_cast<std::size_t>(header.logits))));
    session.state_->for_each_cached(write);
    const std::uint64_t sum = checksum.value();
    write_bytes(std::as_bytes(std::span(&sum, 1)));
  }

  static std::uint64_t bytes_before_cache(const SavedHeader& header) {
    return sizeof header + header.position * sizeof(Token) + header.logits * sizeof(float);
  }

  template <class Source>
  static void load_from(Session& session, const Source& source) {
    const SavedHeader header = check(source, session);
    try {
      std::uint64_t at = sizeof header;
      const auto read = [&](std::span<std::byte> bytes) {
        source.read_all(at, bytes, "saved session");
        at += bytes.size();
      };
      session.reset();
      session.tokens_.resize(static_cast<std::size_t>(header.position));
      read(std::as_writable_bytes(std::span(session.tokens_)));
      for (const Token token : session.tokens_) {
        if (token >= soft_token && token < static_cast<Token>(session.model_->token_limit())) continue;
        fail(ErrorCode::malformed, source.name(), ": token ", token, ", expected ", soft_token, " to ",
             session.model_->token_limit() - 1);
      }
      read(std::as_writable_bytes(std::span(session.logits_).first(static_cast<std::size_t>(header.logits))));
      session.state_->resume(session.tokens_);
      std::uint64_t cached = 0;
      session.state_->for_each_cached([&](std::span<const std::byte> bytes) { cached += bytes.size(); });
      if (cached != header.cache_bytes) {
        fail(ErrorCode::malformed, source.name(), ": ", header.cache_bytes, " bytes of K and V, expected ", cached);
      }
      session.state_->for_each_cached(read);
      session.has_logits_ = header.logits > 0;
    } catch (...) {
      session.reset();
      throw;
    }
  }

  static std::uint64_t identity_of(const Session& session) {
    return session.model_->identity() ^ session.state_->adapters_identity;
  }

  static SavedHeader header_of(const Session& session) {
    SavedHeader header = header_of(*session.state_);
    header.model = identity_of(session);
    header.position = session.position();
    header.logits = session.has_logits_ ? session.logits_.size() : 0;
    session.state_->for_each_cached([&](std::span<const std::byte> bytes) { header.cache_bytes += bytes.size(); });
    return header;
  }

  static SavedHeader header_of(const ModelState& state) {
    SavedHeader header;
    const std::string_view type = state.cache_type();
    std::copy_n(type.begin(), (std::min)(type.size(), header.cache_type.size()), header.cache_type.begin());
    return header;
  }

  static std::string_view text(const std::array<char, 8>& letters) {
    return {letters.data(),
            static_cast<std::size_t>(std::find(letters.begin(), letters.end(), '\0') - letters.begin())};
  }

  /// All checks of what was saved, before the session changes.
  template <class Source>
  static SavedHeader check(const Source& file, const Session& session) {
    const auto refuse = [&](const auto&... parts) { fail(ErrorCode::malformed, file.name(), ": has ", parts...); };
    SavedHeader header;
    if (file.size() < sizeof header + sizeof(std::uint64_t)) refuse(file.size(), " bytes: it is no saved session");
    file.read_all(0, std::as_writable_bytes(std::span(&header, 1)), "header");
    check(file, header, session);
    const std::uint64_t before = bytes_before_cache(header) + sizeof(std::uint64_t);
    if (file.size() < before || file.size() - before != header.cache_bytes) {
      refuse(file.size(), " bytes, expected ", before, " and ", header.cache_bytes, " of K and V: is it truncated?");
    }
    check_sum(file);
    return header;
  }

  template <class Source>
  static void check(const Source& file, const SavedHeader& header, const Session& session) {
    const auto refuse = [&](ErrorCode code, const auto&... parts) { fail(code, file.name(), ": ", parts...); };
    const SavedHeader expected = header_of(*session.state_);
    if (header.magic != expected.magic) refuse(ErrorCode::malformed, "is no saved session, or of another version");
    const std::uint64_t model = identity_of(session);
    if (header.model != model) {
      refuse(ErrorCode::argument, "a session of another model, or with other adapters: identity ", header.model,
             ", expected ", model);
    }
    if (header.cache_type != expected.cache_type) {
      refuse(ErrorCode::argument, "K and V are in ", text(header.cache_type), ", expected ", text(expected.cache_type));
    }
    if (header.position > session.context()) {
      refuse(ErrorCode::argument, "has read ", header.position, " tokens, more than the context of ", session.context(),
             session.longer_context());
    }
    if (header.logits != 0 && header.logits != session.logits_.size())
      refuse(ErrorCode::malformed, header.logits, " logits, expected 0 or ", session.logits_.size());
    if (header.cache_bytes > session.kv_cache_bytes()) {
      refuse(ErrorCode::malformed, header.cache_bytes, " bytes of K and V, expected no more than the session's ",
             session.kv_cache_bytes());
    }
  }

  template <class Source>
  static void check_sum(const Source& file) {
    std::vector<std::byte> piece(std::size_t{1} << 20);
    Checksum sum;
    std::uint64_t stored = 0, at = 0;
    for (const std::uint64_t end = file.size() - sizeof stored; at < end;) {
      const auto part =
          std::span(piece).first(static_cast<std::size_t>(std::min<std::uint64_t>(piece.size(), end - at)));
      file.read_all(at, part, "saved session");
      sum.add(part);
      at += part.size();
    }
    file.read_all(at, std::as_writable_bytes(std::span(&stored, 1)), "checksum");
    if (sum.value() != stored) {
      fail(ErrorCode::malformed, file.name(), ": its checksum is ", sum.value(), ", expected ", stored,
           ": the file is damaged");
    }
  }
};

}  // namespace ple::inline PLE_ABI
