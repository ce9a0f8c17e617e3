// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "ple/core/config.h"

namespace ple::inline PLE_ABI {
namespace detail {

enum class JinjaKind : std::uint8_t {
  // Statements.
  block,      // children, in order
  text,       // text
  output,     // expression
  if_tag,     // condition, block, condition, block, ..., perhaps the block of `else`
  for_tag,    // targets, iterable, filter or nothing, block, block of `else` or nothing
  set,        // target, expression
  set_block,  // target, block
  macro,      // text: name; children: parameters, block
  parameter,  // text: name; child: default, if there is one
  scope,      // block with variables of its own
  break_tag,
  continue_tag,
  // Expressions.
  nothing,
  string,      // text: as written between the quotes
  number,      // text
  constant,    // text: true, false or none
  name,        // text
  list,        // children
  mapping,     // key, value, key, value, ...
  attribute,   // text: name; child: object
  item,        // object, key
  slice,       // object, start, stop, step; nothing where omitted
  call,        // callee, arguments
  keyword,     // text: name; child: the argument's value
  filter,      // text: name; children: value, arguments
  test,        // text: name; children: value, arguments
  not_,        // child
  and_,        // children
  or_,         // children
  choice,      // value, condition, other value or nothing
  negative,    // child
  operation,   // text: the operator; children: both sides
  comparison,  // value, then operand after operand
  operand,     // text: the operator; child
  unsupported  // text: what it is
};

struct JinjaNode {
  JinjaKind kind = JinjaKind::nothing;
  std::uint8_t height = 0;
  std::size_t at = 0;  // byte offset in the source
  std::string_view text;
  std::vector<JinjaNode> children;
};

}  // namespace detail
}  // namespace ple::inline PLE_ABI
