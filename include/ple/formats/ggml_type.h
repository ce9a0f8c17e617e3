// SPDX-License-Identifier: Apache-2.0
// GGUF's number types, also those of which ple knows only the size. Source: GGML_QUANT_SIZES in Python's `gguf`.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>

#include "ple/core/config.h"
#include "ple/dtype/dtype.h"

namespace ple::inline PLE_ABI {

struct GgmlType {
  std::uint32_t id;       ///< the file's number
  std::string_view name;  ///< equals DtypeTraits::name if ple reads the type
  std::uint32_t values;   ///< of a block
  std::uint32_t bytes;    ///< of a block
};

inline constexpr GgmlType ggml_types[] = {
    {0, "f32", 1, 4},         {1, "f16", 1, 2},         {2, "q4_0", 32, 18},      {3, "q4_1", 32, 20},
    {6, "q5_0", 32, 22},      {7, "q5_1", 32, 24},      {8, "q8_0", 32, 34},      {9, "q8_1", 32, 40},
    {10, "q2_k", 256, 84},    {11, "q3_k", 256, 110},   {12, "q4_k", 256, 144},   {13, "q5_k", 256, 176},
    {14, "q6_k", 256, 210},   {15, "q8_k", 256, 292},   {16, "iq2_xxs", 256, 66}, {17, "iq2_xs", 256, 74},
    {18, "iq3_xxs", 256, 98}, {19, "iq1_s", 256, 50},   {20, "iq4_nl", 32, 18},   {21, "iq3_s", 256, 110},
    {22, "iq2_s", 256, 82},   {23, "iq4_xs", 256, 136}, {24, "i8", 1, 1},         {25, "i16", 1, 2},
    {26, "i32", 1, 4},        {27, "i64", 1, 8},        {28, "f64", 1, 8},        {29, "iq1_m", 256, 56},
    {30, "bf16", 1, 2},       {34, "tq1_0", 256, 54},   {35, "tq2_0", 256, 66},   {39, "mxfp4", 32, 17},
    {40, "nvfp4", 64, 36},    {41, "q1_0", 128, 18}};

/// Null for an unknown number.
inline const GgmlType* ggml_type(std::uint32_t id) {
  for (const GgmlType& type : ggml_types) {
    if (type.id == id) return &type;
  }
  return nullptr;
}

inline const GgmlType& ggml_type(Dtype dtype) {
  return *std::find_if(std::begin(ggml_types), std::end(ggml_types),
                       [&](const GgmlType& type) { return type.name == name_of(dtype); });
}

static_assert(std::all_of(all_dtypes.begin(), all_dtypes.end(), [](Dtype dtype) {
  return std::any_of(std::begin(ggml_types), std::end(ggml_types),
                     [&](const GgmlType& t) { return t.name == name_of(dtype); });
}));

/// As the format's own tools spell it: "Q4_K".
inline std::string spelled(const GgmlType& type) {
  std::string name(type.name);
  for (char& c : name) {
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  }
  return name;
}

}  // namespace ple::inline PLE_ABI
