// SPDX-License-Identifier: Apache-2.0
// A training run in a file, to go on with the same bits: a safetensors file of what is trained, with the optimiser's
// averages. It takes its name only when all of it is on the disk: a killed process leaves the one before.
#pragma once

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ple/core/checked_writer.h"
#include "ple/core/checksum.h"
#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/number_text.h"
#include "ple/formats/safetensors.h"
#include "ple/formats/safetensors_header.h"
#include "ple/train/trainer.h"

namespace ple::inline PLE_ABI {

namespace detail {

inline constexpr std::string_view checkpoint_version = "ple training 1";

/// The options that a run must keep, to go on with the same bits.
inline std::string run_text(const TrainingOptions& options) {
  std::string text;
  const auto add = [&](std::string_view name, double value) {
    text += std::string(text.empty() ? "" : ", ") + std::string(name) + " " + number_text(value);
  };
  add("rank", static_cast<double>(options.rank));
  add("alpha", options.alpha);
  add("rate", options.rate);
  add("weight_share", options.weight_share);
  add("row_rate", options.rows ? options.row_rate : 0);
  add("decay", options.decay);
  add("clip", options.clip);
  add("steps", static_cast<double>(options.schedule.steps));
  add("warm_up", static_cast<double>(options.schedule.warm_up));
  add("beta1", static_cast<double>(options.adamw.beta1));
  add("beta2", static_cast<double>(options.adamw.beta2));
  add("epsilon", static_cast<double>(options.adamw.epsilon));
  add("seed", static_cast<double>(options.seed));
  for (const RowId id : options.only_rows) add("row", static_cast<double>(id));
  return text;
}

/// The tensors of a checkpoint, in its order: arrays of f32, and for rows their ids and steps.
struct CheckpointTensor {
  std::string name;
  std::string_view dtype;
  std::vector<std::uint64_t> shape;
  std::vector<std::span<std::byte>> parts;  ///< one after another

  std::uint64_t bytes() const {
    std::uint64_t sum = 0;
    for (const std::span<std::byte> part : parts) sum += part.size();
    return sum;
  }
};

inline std::span<std::byte> bytes_of_array(auto& array) { return std::as_writable_bytes(std::span(array)); }

/// `ids` and `steps`, of the rows, must outlive the result.
inline std::vector<CheckpointTensor> checkpoint_tensors(TrainedParameters& trained, std::vector<std::uint64_t>& ids,
                                                        std::vector<std::uint64_t>& steps) {
  std::vector<CheckpointTensor> all;
  const auto add = [&](const std::string& name, TrainedValues& values) {
    const std::vector<std::uint64_t> shape = {values.values.size()};
    all.push_back({name + ".values", "F32", shape, {bytes_of_array(values.values)}});
    all.push_back({name + ".mean", "F32", shape, {bytes_of_array(values.mean)}});
    all.push_back({name + ".variance", "F32", shape, {bytes_of_array(values.variance)}});
  };
  for (auto& entry : trained.adapters) {
    const std::string name = hf_name("", entry.first.parameter, entry.first.layer);
    add(name + ".a", entry.second.a);
    add(name + ".b", entry.second.b);
  }
  for (auto& entry : trained.weights) add(hf_name("", entry.first.parameter, entry.first.layer), entry.second);
  if (trained.rows.empty()) return all;
  const std::uint64_t count = trained.rows.size(), cols = trained.rows.begin()->second.values.size();
  all.push_back({"rows.ids", "I64", {count}, {bytes_of_array(ids)}});
  all.push_back({"rows.steps", "I64", {count}, {bytes_of_array(steps)}});
  for (const auto& [name, array] :
       {std::pair{"rows.values", &TrainedValues::values}, std::pair{"rows.mean", &TrainedValues::mean},
        std::pair{"rows.variance", &TrainedValues::variance}}) {
    CheckpointTensor& tensor = all.emplace_back(CheckpointTensor{name, "F32", {count, cols}, {}});
    for (auto& row : trained.rows) tensor.parts.push_back(bytes_of_array(row.second.*array));
  }
  return all;
}

}  // namespace detail

/// Notes are the caller's: they come back from load_checkpoint. Replaces a file only when all was read back.
/// Errors: ErrorCode::file, with an older file still there.
template <class Model>
void save_checkpoint(Trainer<Model>& trainer, const std::filesystem::path& path,
                     const std::map<std::string, std::string>& notes = {}) {
  std::vector<std::uint64_t> ids, steps;
  for (const auto& row : trainer.trained().rows) {
    ids.push_back(row.first);
    steps.push_back(row.second.steps);
  }
  const std::vector<detail::CheckpointTensor> tensors = detail::checkpoint_tensors(trainer.trained(), ids, steps);
  Checksum sum;
  SafetensorsHeader header;
  for (const detail::CheckpointTensor& tensor : tensors) {
    for (const std::span<std::byte> part : tensor.parts) sum.add(part);
  }
  header.metadata("format", std::string(detail::checkpoint_version));
  header.metadata("steps", std::to_string(trainer.steps()));
  header.metadata("model", std::to_string(trainer.model().identity()));
  header.metadata("run", detail::run_text(trainer.options()));
  header.metadata("checksum", std::to_string(sum.value()));
  for (const auto& [name, value] : notes) header.metadata("note." + name, value);
  for (const detail::CheckpointTensor& tensor : tensors) {
    header.tensor(tensor.name, tensor.dtype, tensor.shape, tensor.bytes());
  }
  CheckedWriter writer(path, trainer.model().files());
  const std::string head = header.bytes();
  writer.write(head.data(), head.size());
  for (const detail::CheckpointTensor& tensor : tensors) {
    for (const std::span<std::byte> part : tensor.parts) writer.write(part.data(), part.size());
  }
  writer.finish({});
}

/// Puts a trainer, made with the same options for the same model, where the saved one was. Returns the notes.
/// Errors, with the trainer as it was: ErrorCode::file; malformed for a damaged or other file; argument for another
/// model or other options; missing, shape.
template <class Model>
std::map<std::string, std::string> load_checkpoint(Trainer<Model>& trainer, const std::filesystem::path& path) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  std::map<std::string, std::string> notes;
  const auto field = [&](const std::string& name) {
    const auto found = file.metadata().find(name);
    if (found == file.metadata().end()) {
      fail(ErrorCode::malformed, path.string(), ": has no ", name, ": is it a checkpoint of ple's training?");
    }
    return std::string(found->second);
  };
  const auto natural = [&](const std::string& name) {
    const std::string text = field(name);
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) {
      fail(ErrorCode::malformed, path.string(), ": ", name, " is '", text, "', expected a number");
    }
    return value;
  };
  if (const std::string format = field("format"); format != detail::checkpoint_version) {
    fail(ErrorCode::malformed, path.string(), ": format is '", format, "', expected '", detail::checkpoint_version,
         "'");
  }
  if (natural("model") != trainer.model().identity()) {
    fail(ErrorCode::argument, path.string(), ": was saved with another model");
  }
  if (const std::string run = field("run"), mine = detail::run_text(trainer.options()); run != mine) {
    fail(ErrorCode::argument, path.string(), ": was saved with other options: ", run, "; these are: ", mine);
  }
  const std::uint64_t made = natural("steps"), checksum = natural("checksum");
  for (const auto& [name, value] : file.metadata()) {
    constexpr std::string_view prefix = "note.";
    if (name.starts_with(prefix)) notes.emplace(name.substr(prefix.size()), value);
  }

  const auto bytes_of_tensor = [&](const std::string& name, std::string_view dtype, std::uint64_t size) {
    if (!file.contains(name)) fail(ErrorCode::missing, path.string(), ": ", name, ": no such tensor");
    const Tensor tensor = file.raw(name);
    if (file.dtype(name) != dtype || tensor.bytes != size) {
      fail(ErrorCode::shape, path.string(), ": ", name, ": ", tensor.bytes, " bytes of ", file.dtype(name),
           ", expected ", size, " of ", dtype);
    }
    return std::span(tensor.data, tensor.bytes);
  };
  TrainedParameters loaded = trainer.trained();
  loaded.rows.clear();
  std::vector<std::uint64_t> ids, steps;
  if (loaded.trains_rows && file.contains("rows.ids")) {
    const std::size_t cols = trainer.model().table.cols();
    const Tensor tensor = file.raw("rows.ids");
    ids.resize(tensor.bytes / sizeof(std::uint64_t));
    steps.resize(ids.size());
    const auto copy = [&](const std::string& name, std::vector<std::uint64_t>& to) {
      const std::span<const std::byte> from = bytes_of_tensor(name, "I64", to.size() * sizeof(std::uint64_t));
      if (!to.empty()) std::memcpy(to.data(), from.data(), from.size());
    };
    copy("rows.ids", ids);
    copy("rows.steps", steps);
    static_cast<void>(bytes_of_tensor("rows.values", "F32", std::uint64_t{ids.size()} * cols * sizeof(float)));
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] >= trainer.model().table.rows() || (i > 0 && ids[i] <= ids[i - 1])) {
        fail(ErrorCode::malformed, path.string(), ": rows.ids: ", ids[i], " of ", trainer.model().table.rows(),
             " rows, expected ascending ids");
      }
      TrainedValues& row = loaded.rows[ids[i]] = TrainedValues(cols);
      row.gradient = {};
      row.steps = steps[i];
    }
  }
  const std::vector<detail::CheckpointTensor> tensors = detail::checkpoint_tensors(loaded, ids, steps);
  Checksum sum;
  for (const detail::CheckpointTensor& tensor : tensors) {
    std::span<const std::byte> from = bytes_of_tensor(tensor.name, tensor.dtype, tensor.bytes());
    sum.add(from);
    for (const std::span<std::byte> part : tensor.parts) {
      std::memcpy(part.data(), from.data(), part.size());
      from = from.subspan(part.size());
    }
  }
  if (tensors.size() != file.names().size()) {
    fail(ErrorCode::argument, path.string(), ": has ", file.names().size(), " tensors, what is trained has ",
         tensors.size());
  }
  if (sum.value() != checksum) fail(ErrorCode::malformed, path.string(), ": is damaged: its checksum is wrong");
  for (auto& entry : loaded.adapters) entry.second.a.steps = entry.second.b.steps = made;
  for (auto& entry : loaded.weights) entry.second.steps = made;
  trainer.resume(std::move(loaded), made);
  return notes;
}

}  // namespace ple::inline PLE_ABI
