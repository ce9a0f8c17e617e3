// SPDX-License-Identifier: Apache-2.0
// Weights as compressed-tensors packs them ("pack-quantized"; Google's QAT checkpoints are w4a16 in groups of 32):
// symmetric integers of 4 or 8 bits and a scale per group of a row. q4_0 and q8_0 hold the same numbers in another
// order. compressed-tensors rounds scale * integer to the scale's type; here it stays exact.
// Source: pack_quantized in the Python package `compressed-tensors`.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "ple/checkpoint/hf_tensor_names.h"
#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/memory.h"
#include "ple/dtype/floats.h"
#include "ple/dtype/quants.h"
#include "ple/formats/safetensors_folder.h"
#include "ple/tensor/tensor.h"

namespace ple::inline PLE_ABI {
namespace detail {

/// Unpacks 32 integers; `from` holds the first in its lowest bits, each with 2^(bits - 1) added.
inline void copy_integers(const unsigned char* from, q4_0& block) {
  for (int i = 0; i < 16; ++i) {
    const int low = from[i / 2] >> 4 * (i % 2) & 15, high = from[i / 2 + 8] >> 4 * (i % 2) & 15;
    block.pairs[i] = static_cast<std::uint8_t>(low | high << 4);
  }
}
inline void copy_integers(const unsigned char* from, q8_0& block) {
  for (int i = 0; i < 32; ++i) block.values[i] = static_cast<std::int8_t>(from[i] - 128);
}

inline float scale_at(const Tensor& scale, std::uint64_t i) {
  const std::byte* at = scale.data + i * bytes_of(scale.dtype, 1);
  if (scale.dtype == Dtype::f32) return *reinterpret_cast<const float*>(at);
  if (scale.dtype == Dtype::f16) return to_f32(*reinterpret_cast<const f16*>(at));
  return to_f32(*reinterpret_cast<const bf16*>(at));
}

}  // namespace detail

/// The weights called `name` in the text model, as q4_0 or q8_0 in new memory: 4.5 or 8.5 bits each. False if absent.
class PackedWeights {
 public:
  PackedWeights(const TensorFiles& files, const HfTensorNames& names, const std::string& name)
      : files_(files), names_(names), name_(name) {}

  explicit operator bool() const { return part("_packed") != nullptr; }

  /// Errors: ErrorCode::missing, shape, dtype; not_supported for other integers; malformed for a scale that is not a
  /// number or not exact in f16. (One below 2^-14 may lose bits: its weights are next to nothing.)
  Tensor tensor() const {
    const std::string& name = needed("_packed");
    const SafetensorsFile& file = *files_.at(name);
    const Tensor packed = file.raw(name);
    const auto refuse = [&](const auto&... parts) {
      fail(ErrorCode::not_supported, packed.file, ": ", name, ": ", parts...);
    };
    for (const char* ending : {"_zero_point", "_g_idx"}) {
      if (const std::string* other = part(ending))
        refuse("there is ", *other, ": only symmetric weights that are not reordered are read");
    }
    const std::string& scale_name = needed("_scale");
    const Tensor scale = files_.at(scale_name)->tensor(scale_name);
    const auto [rows, cols] = shape();
    const auto is = [rows = rows](const Tensor& t) { return t.shape.size() == 2 && t.shape[0] == rows; };
    if (!is(packed) || !is(scale)) {
      fail(ErrorCode::shape, packed.file, ": ", name, ": shape is ", shape_text(packed.shape), ", that of ", scale_name,
           " is ", shape_text(scale.shape), ", expected two dimensions and ", rows, " rows of both");
    }
    const std::uint64_t groups = scale.shape[1], group = groups > 0 ? cols / groups : 0;
    const bool four = packed.shape[1] == cols / 8 && cols % 8 == 0,
               eight = packed.shape[1] == cols / 4 && cols % 4 == 0;
    if (file.dtype(name) != "I32" || (!four && !eight) || group * groups != cols || group == 0 || group % 32 != 0) {
      refuse(file.dtype(name), " of ", shape_text(packed.shape), " for ", shape_text({rows, cols}), " weights in ",
             groups, " groups a row, expected I32 of 8 or 4 weights each, in groups of a multiple of 32");
    }
    return four ? converted<q4_0>(packed, scale, rows, cols, group) : converted<q8_0>(packed, scale, rows, cols, group);
  }

  /// [rows, cols]. Errors: ErrorCode::missing, shape.
  std::pair<std::uint64_t, std::uint64_t> shape() const {
    const std::string& name = needed("_shape");
    const Tensor tensor = files_.at(name)->raw(name);
    std::int64_t sizes[2];
    if (files_.at(name)->dtype(name) != "I64" || tensor.bytes != sizeof sizes) {
      fail(ErrorCode::shape, tensor.file, ": ", name, ": is ", files_.at(name)->dtype(name), " of ",
           shape_text(tensor.shape), ", expected I64 of [2]");
    }
    std::memcpy(sizes, tensor.data, sizeof sizes);
    constexpr std::int64_t most = std::int64_t{1} << 31;
    if (sizes[0] < 1 || sizes[1] < 1 || sizes[0] > most || sizes[1] > most) {
      fail(ErrorCode::shape, tensor.file, ": ", name, ": is ", sizes[0], " and ", sizes[1], ", expected 1 to ", most);
    }
    return {static_cast<std::uint64_t>(sizes[0]), static_cast<std::uint64_t>(sizes[1])};
  }

 private:
  const std::string* part(const char* ending) const { return names_.find(name_ + ending); }
  const std::string& needed(const char* ending) const {
    const std::string* found = part(ending);
    if (!found) {
      fail(ErrorCode::missing, files_.at(*part("_packed"))->raw(*part("_packed")).file, ": ", names_.prefix(), name_,
           ending, ": no file of the folder has this tensor");
    }
    return *found;
  }

  template <class Block>
  static Tensor converted(const Tensor& packed, const Tensor& scale, std::uint64_t rows, std::uint64_t cols,
                          std::uint64_t group) {
    constexpr std::size_t block_bytes = sizeof(Block) - sizeof(f16);  // of integers, in the file and in Block
    const auto count = static_cast<std::size_t>(rows * cols / 32);
    const auto memory = std::make_shared<AlignedVector<std::byte>>(count * sizeof(Block));
    auto* blocks = reinterpret_cast<Block*>(memory->data());
    const auto* from = reinterpret_cast<const unsigned char*>(packed.data);
    for (std::size_t i = 0; i < count; ++i) {
      const float exact = detail::scale_at(scale, i * 32 / group);
      Block& block = blocks[i];
      block.scale = to_f16(exact);
      const bool held = std::isfinite(exact) && (to_f32(block.scale) == exact || std::abs(exact) < 0x1p-14f);
      if (!held) {
        fail(ErrorCode::malformed, scale.file, ": ", scale.name, ": row ", i * 32 / cols, " has the scale ", exact,
             ", expected a number that f16 holds");
      }
      detail::copy_integers(from + i * block_bytes, block);
    }
    return {packed.file, packed.name, DtypeTraits<Block>::id, {rows, cols}, memory->data(), memory->size(), memory};
  }

  const TensorFiles& files_;
  const HfTensorNames& names_;
  std::string name_;
};

}  // namespace ple::inline PLE_ABI
