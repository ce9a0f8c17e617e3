// SPDX-License-Identifier: Apache-2.0
// The order in which texts are learnt, and which of them are held out: the same on every platform for a seed. What
// std::shuffle and the standard distributions make of a seed is each library's own.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/train/training_text.h"

namespace ple::inline PLE_ABI {

/// SplitMix64 (Steele, Lea and Flood, 2014): 64 bits of state, any seed is good.
class SplitMix64 {
 public:
  explicit SplitMix64(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

  /// A number from 0 to count - 1, all equally likely; count > 0.
  std::uint64_t below(std::uint64_t count) {
    // The last numbers, which are fewer than `count`, would make the first remainders likelier.
    constexpr std::uint64_t most = (std::numeric_limits<std::uint64_t>::max)();
    const std::uint64_t uneven = (most % count + 1) % count;
    while (true) {
      const std::uint64_t number = next();
      if (number <= most - uneven) return number % count;
    }
  }

  /// In [-most, most).
  float uniform(float most) { return most * (static_cast<float>(next() >> 40) * 0x1p-23f - 1); }

 private:
  std::uint64_t state_;
};

/// The numbers from 0 to count - 1 in the order of an epoch: each epoch has another.
inline std::vector<std::size_t> shuffled_order(std::size_t count, std::uint64_t seed, std::uint64_t epoch = 0) {
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), std::size_t{0});
  // Mixed first: else seed s in epoch e would be seed s + 1 in epoch e - 1.
  SplitMix64 random(SplitMix64(seed).next() ^ epoch);
  for (std::size_t left = count; left > 1; --left)
    std::swap(order[left - 1], order[static_cast<std::size_t>(random.below(left))]);
  return order;
}

/// Which texts are held out: not learnt, to see how well unseen ones are predicted. Either a share drawn by a seed, or
/// every n-th; by default none.
struct HeldOut {
  double fraction = 0;     ///< of all texts, 0 to less than 1; at least one text is held out, and one is not
  std::uint64_t seed = 0;  ///< for `fraction`
  std::size_t every = 0;   ///< the n-th, 2n-th, ...; 0: see `fraction`
};

struct SplitTexts {
  std::vector<TrainingText> training = {}, held_out = {};
};

/// Both parts keep the order of the texts. Errors: ErrorCode::argument for a fraction out of range, for both kinds at
/// once, or if one part would be empty although texts were to be held out.
inline SplitTexts split_texts(std::vector<TrainingText> texts, const HeldOut& held_out) {
  const std::size_t count = texts.size();
  if (!(held_out.fraction >= 0 && held_out.fraction < 1))
    fail(ErrorCode::argument, "HeldOut::fraction is ", held_out.fraction, ", expected 0 to less than 1");
  if (held_out.fraction > 0 && held_out.every > 0) {
    fail(ErrorCode::argument, "HeldOut::fraction is ", held_out.fraction, " and HeldOut::every is ", held_out.every,
         ", expected one of them to be 0");
  }
  if (held_out.fraction > 0 && count < 2)
    fail(ErrorCode::argument, "HeldOut::fraction is ", held_out.fraction, " of ", count, " texts, expected 2 or more");
  if (held_out.every == 1 || held_out.every > count) {
    fail(ErrorCode::argument, "HeldOut::every is ", held_out.every, ", expected 0, or 2 to the number of texts, ",
         count);
  }
  std::vector<bool> is_held_out(count);
  if (held_out.fraction > 0) {
    auto wanted = static_cast<std::size_t>(std::floor(held_out.fraction * static_cast<double>(count) + 0.5));
    wanted = (std::min)((std::max)(wanted, std::size_t{1}), count - 1);
    const std::vector<std::size_t> order = shuffled_order(count, held_out.seed);
    for (std::size_t i = 0; i < wanted; ++i) is_held_out[order[i]] = true;
  }
  if (held_out.every > 0) {
    for (std::size_t i = held_out.every - 1; i < count; i += held_out.every) is_held_out[i] = true;
  }
  SplitTexts split;
  for (std::size_t i = 0; i < count; ++i)
    (is_held_out[i] ? split.held_out : split.training).push_back(std::move(texts[i]));
  return split;
}

}  // namespace ple::inline PLE_ABI
