// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>

#include "ple/core/config.h"
#include "ple/core/number_text.h"

namespace ple::inline PLE_ABI {

/// The kind of error. The message names the file, tensor or field, and both values.
enum class ErrorCode {
  file,           ///< a file cannot be opened, read or mapped
  malformed,      ///< a file's contents contradict its format
  missing,        ///< a required tensor, field or file is not there
  shape,          ///< a tensor's shape differs from the configuration's
  dtype,          ///< a tensor's number type is unknown, or not the one asked for
  config,         ///< a configuration field is out of range or contradicts another
  not_supported,  ///< valid, but this version does not implement it
  argument,       ///< the caller passed an impossible value
  cancelled,      ///< the caller asked to stop
  limit,          ///< more than the caller's own limits allow
  system,         ///< the operating system refused something other than a file, such as a thread
  not_finite,     ///< a sum in training overflowed or is no number
};

/// Thrown while opening, building or checking arguments. After that, computing a token does not throw.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

namespace detail {

/// A part of a message: borrowed text or a number. Trivial, so that a call site compiles to a few stores.
struct MessagePart {
  enum class Kind : unsigned char { text, integer, natural, real } kind = Kind::text;
  union {
    const char* text = nullptr;
    long long integer;
    unsigned long long natural;
    double real;
  };
  std::size_t size = 0;

  MessagePart(std::string_view part) : text(part.data()), size(part.size()) {}   // NOLINT(google-explicit-constructor)
  MessagePart(const char* part) : MessagePart(std::string_view(part)) {}         // NOLINT(google-explicit-constructor)
  MessagePart(const std::string& part) : MessagePart(std::string_view(part)) {}  // NOLINT(google-explicit-constructor)
  template <std::signed_integral T>
  MessagePart(T part) : kind(Kind::integer), integer(part) {}  // NOLINT(google-explicit-constructor)
  template <std::unsigned_integral T>
  MessagePart(T part) : kind(Kind::natural), natural(part) {}  // NOLINT(google-explicit-constructor)
  template <std::floating_point T>
  MessagePart(T part) : kind(Kind::real), real(static_cast<double>(part)) {}  // NOLINT(google-explicit-constructor)
};

[[noreturn, gnu::noinline, gnu::cold]] inline void fail(ErrorCode code, const MessagePart* parts, std::size_t count) {
  std::string message;
  for (std::size_t i = 0; i < count; ++i) {
    const MessagePart& part = parts[i];
    switch (part.kind) {
      case MessagePart::Kind::text: message.append(part.text, part.size); break;
      case MessagePart::Kind::integer: message += std::to_string(part.integer); break;
      case MessagePart::Kind::natural: message += std::to_string(part.natural); break;
      case MessagePart::Kind::real: message += printed_number(part.real, 6); break;
    }
  }
  throw Error(code, message);
}

}  // namespace detail

/// Throws an Error whose message joins all parts. Inline: compilers take longer for a small function of each list of
/// types.
template <class... Parts>
[[noreturn, gnu::always_inline]] inline void fail(ErrorCode code, const Parts&... parts) {
  const detail::MessagePart list[] = {parts...};
  detail::fail(code, list, sizeof...(parts));
}

}  // namespace ple::inline PLE_ABI
