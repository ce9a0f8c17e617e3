// SPDX-License-Identifier: Apache-2.0
// How many parameters a model has, in Google's groups, and what 'effective' means.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "ple/core/config.h"
#include "ple/model/parameter_shapes.h"

namespace ple::inline PLE_ABI {

/// Numbers of parameters. Google's four groups are text(), vision, audio and ple.
struct ParameterGroups {
  std::uint64_t token_embedding = 0;  ///< in the text group; also the head if tied
  std::uint64_t other_text = 0;       ///< the rest of the text group
  std::uint64_t einsums = 0;  ///< of other_text, what the Gemma 4 technical report counts: see effective_report()
  std::uint64_t ple = 0;      ///< the PLE table
  std::uint64_t experts = 0;  ///< of other_text, those of a mixture
  std::uint64_t experts_per_token = 0;                   ///< of experts, those that a token goes to
  std::optional<std::uint64_t> vision = {}, audio = {};  ///< only files tell; nothing if they have none

  std::uint64_t text() const { return token_embedding + other_text; }
  std::uint64_t total() const { return text() + ple + vision.value_or(0) + audio.value_or(0); }
  std::uint64_t embeddings() const { return token_embedding + ple; }
  /// The text that one token needs, as in '26B-A4B'; of the tables, all.
  std::uint64_t active() const { return text() + ple - experts + experts_per_token; }

  /// 'Effective' in Gemma 3n's documentation: text without the PLE table and the token embedding. E2B: 1.91 B
  /// (1,905,495,648); E4B: 3.98 B (3,980,491,248).
  std::uint64_t effective_documentation() const { return other_text; }

  /// 'Effective' in the Gemma 4 technical report: the embedder (token embedding) and the einsums. The report gives
  /// 1,870 M einsums for E2B and 3,940 M for E4B: 2.27 B and 4.61 B in all. The text without its two tables is 1,877.1
  /// M and 3,973.4 M, which do not round to these. Without the value projections, the weight matrices are 1,869.7 M and
  /// 3,936.1 M: these match when rounded to 10 M, and give 2.272 B and 4.607 B with the embedder. Only value or key
  /// projections, which have one size, can be what is left out. So we count this way; the report does not say it.
  std::uint64_t effective_report() const { return token_embedding + einsums; }

  static constexpr std::string_view documentation_definition =
      "text without the PLE table and without the token embedding (Gemma 3n documentation)";
  static constexpr std::string_view report_definition =
      "token embedding + einsums: weight matrices, K and V counted once (Gemma 4 technical report)";
};

inline ParameterGroups parameter_groups(std::span<const ParameterShape> shapes) {
  ParameterGroups groups;
  for (const ParameterShape& shape : shapes) {
    if (shape.parameter == Parameter::token_embedding) {
      groups.token_embedding += shape.count();
    } else if (shape.parameter == Parameter::ple_table) {
      groups.ple += shape.count();
    } else {
      groups.other_text += shape.count();
      if (shape.shape.size() >= 2 && shape.parameter != Parameter::value) groups.einsums += shape.count();
      if (part_of(shape.parameter) == ParameterPart::experts) {
        groups.experts += shape.count();
        groups.experts_per_token += shape.count_per_token();
      }
    }
  }
  return groups;
}

}  // namespace ple::inline PLE_ABI
