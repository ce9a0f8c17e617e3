// SPDX-License-Identifier: Apache-2.0
// All number types of stored weights, and the way from a Dtype at run time to its type.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "ple/core/config.h"
#include "ple/dtype/floats.h"
#include "ple/dtype/fp4.h"
#include "ple/dtype/i_quants.h"
#include "ple/dtype/k_quants.h"
#include "ple/dtype/quants.h"
#include "ple/dtype/ternary.h"
#include "ple/dtype/traits.h"

namespace ple::inline PLE_ABI {

template <StoredType... Ts>
struct TypeList {};

/// Every type with a Dtype, in Dtype's order.
using StoredTypes = TypeList<f32, bf16, f16, q8_0, q4_0, q4_1, q5_0, q5_1, iq4_nl, q2_k, q3_k, q4_k, q5_k, q6_k, iq4_xs,
                             iq2_xxs, iq2_xs, iq2_s, iq3_xxs, iq3_s, iq1_s, iq1_m, tq1_0, tq2_0, mxfp4, nvfp4>;

/// One of several stored types: which one is known when a tensor is loaded.
template <StoredType... Ts>
struct OneOf {};

using Floats = OneOf<f32, bf16, f16>;  ///< the floating-point types

namespace detail {

template <class List>
struct OneOfList;
template <StoredType... Ts>
struct OneOfList<TypeList<Ts...>> {
  using type = OneOf<Ts...>;
};

template <class... Ts>
constexpr auto ids_of(TypeList<Ts...> /*types*/) {
  return std::array{DtypeTraits<Ts>::id...};
}

template <class F, class T, class... Rest>
decltype(auto) with_dtype(Dtype type, F& f, TypeList<T, Rest...> /*types*/) {
  if constexpr (sizeof...(Rest) > 0) {
    if (type != DtypeTraits<T>::id) return with_dtype(type, f, TypeList<Rest...>());
  }
  return f.template operator()<T>();
}

}  // namespace detail

using Any = detail::OneOfList<StoredTypes>::type;  ///< every type that this version reads

inline constexpr auto all_dtypes = detail::ids_of(StoredTypes());

/// Calls f.template operator()<T>() with the type T that `type` names.
template <class F>
decltype(auto) with_dtype(Dtype type, F&& f) {
  return detail::with_dtype(type, f, StoredTypes());
}

/// What is known of a type at run time. A table: with_dtype would compile a function per question and type, slowly.
struct DtypeInfo {
  std::string_view name;
  std::size_t values_per_block, bytes_per_block;
  std::size_t alignment;  ///< of a block in memory, in bytes
  bool is_encodable;      ///< whether values can be written in the type, not only read
};

namespace detail {

template <class... Ts>
constexpr auto infos_of(TypeList<Ts...> /*types*/) {
  return std::array{DtypeInfo{DtypeTraits<Ts>::name, DtypeTraits<Ts>::values_per_block, sizeof(Ts), alignof(Ts),
                              EncodableType<Ts>}...};
}

inline constexpr auto dtype_infos = infos_of(StoredTypes());

}  // namespace detail

constexpr const DtypeInfo& dtype_info(Dtype type) { return detail::dtype_infos[static_cast<std::size_t>(type)]; }

constexpr std::string_view name_of(Dtype type) { return dtype_info(type).name; }
inline std::size_t values_per_block(Dtype type) { return dtype_info(type).values_per_block; }
inline std::size_t alignment_of(Dtype type) { return dtype_info(type).alignment; }
inline bool is_encodable(Dtype type) { return dtype_info(type).is_encodable; }

/// Bytes of `count` values, a whole number of blocks.
inline std::size_t bytes_of(Dtype type, std::size_t count) {
  return count / dtype_info(type).values_per_block * dtype_info(type).bytes_per_block;
}

inline std::optional<Dtype> dtype_of_name(std::string_view name) {
  for (const Dtype type : all_dtypes) {
    if (name_of(type) == name) return type;
  }
  return std::nullopt;
}

/// "f32, bf16, ...": the names of all types, or only of those that can be written.
inline std::string names_of_dtypes(bool encodable_only = false) {
  std::string names;
  for (const Dtype type : all_dtypes) {
    if (!encodable_only || is_encodable(type)) names += (names.empty() ? "" : ", ") + std::string(name_of(type));
  }
  return names;
}

/// `value` stored as `type` and read back. Unchanged for block types: a single value fills no block.
inline float rounded_to(Dtype type, float value) {
  if (type == Dtype::bf16) return to_f32(to_bf16(value));
  if (type == Dtype::f16) return to_f32(to_f16(value));
  return value;
}

}  // namespace ple::inline PLE_ABI
