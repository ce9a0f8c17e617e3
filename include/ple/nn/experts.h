// SPDX-License-Identifier: Apache-2.0
// Many small feed-forwards, of which a token uses a few. transformers: Gemma4TextExperts.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "ple/core/arena.h"
#include "ple/core/config.h"
#include "ple/core/mapped_file.h"
#include "ple/nn/expert_cache.h"
#include "ple/nn/mlp.h"
#include "ple/nn/router.h"

namespace ple::inline PLE_ABI {

/// For one chunk of T tokens.
struct ExpertsWorkspace {
  Rows in, out;      ///< [T, d]: of the tokens that go to an expert
  MlpWorkspace mlp;  ///< [T, width]
};

/// y = sum of w_e Wdown_e (gelu(Wgate_e x) * (Wup_e x)) over the experts e that a token goes to, with weights w_e. The
/// tokens of a chunk that go to one expert share its products; experts to which none goes are not touched.
template <class T, Backend B>
struct Experts {
  std::size_t count = 0, width = 0;
  bool fused = true;      ///< gate and up are one matrix
  Linear<T, B> gate_up;   ///< if fused: [count * 2 * width, d]: an expert's gate, its up, the next expert's gate, ...
  Linear<T, B> gate, up;  ///< if not: [count * width, d]
  Linear<T, B> down;      ///< [count * d, width]
  std::shared_ptr<ExpertCache<T, B>> cache;  ///< if set, integer weights stay in the file until an expert is used
  std::vector<std::shared_ptr<const MappedFile>> files;  ///< then, those that hold them

  Experts() = default;
  Experts(std::size_t d, std::size_t n, std::size_t expert_width, bool gate_and_up_fused)
      : count(n), width(expert_width), fused(gate_and_up_fused), down(n * d, expert_width) {
    if (fused) {
      gate_up = Linear<T, B>(n * 2 * width, d);
    } else {
      gate = up = Linear<T, B>(n * width, d);
    }
  }

  /// x, y: [T, d]
  void operator()(const Context& context, const ExpertsWorkspace& w, const RouterWorkspace& routes, Rows x,
                  Rows y) const {
    for (std::size_t t = 0; t < y.rows; ++t) std::fill_n(y.row(t), y.cols, 0.0f);
    if constexpr (Matrix<T>::may_be_integers) {
      if (cache) request(routes);
    }
    for (std::size_t e = 0; e < count; ++e) {  // in this order in every chunk, so that a token's sum has the same bits
      const auto tokens = routes.routed_to(e);
      if (tokens.empty()) continue;
      const Rows in = w.in.slice(0, tokens.size()), out = w.out.slice(0, tokens.size());
      for_each_row(context, in.rows, in.cols,
                   [&](std::size_t i) { std::copy_n(x.row(tokens[i].token), in.cols, in.row(i)); });
      feed_forward(context, w.mlp, e, in, out);
      for_each_row(context, out.rows, out.cols, [&](std::size_t i) {
        B::scale(tokens[i].weight, out.cols, out.row(i));
        B::add(out.row(i), out.cols, y.row(tokens[i].token));
      });
    }
  }

 private:
  /// An expert's rows in a matrix of all.
  struct Part {
    const Linear<T, B>& all;
    std::size_t first, count;

    std::span<const std::byte> bytes() const {
      const std::size_t row = bytes_of(all.weight.dtype(), all.weight.cols());
      return {all.weight.data() + first * row, count * row};
    }
  };
  Part gate_of(std::size_t e) const { return {fused ? gate_up : gate, (fused ? 2 * e : e) * width, width}; }
  Part up_of(std::size_t e) const { return {fused ? gate_up : up, (fused ? 2 * e + 1 : e) * width, width}; }
  Part down_of(std::size_t e) const {
    const std::size_t d = down.weight.rows() / count;
    return {down, e * d, d};
  }

  void feed_forward(const Context& context, const MlpWorkspace& w, std::size_t e, Rows x, Rows y) const {
    if constexpr (Matrix<T>::may_be_integers) {
      if (cache) {
        const auto make = [&] { return repacked(context.threads, e); };
        return (*cache->get(key_of(e), make))(context, w, x, y);
      }
    }
    const Part g = gate_of(e), u = up_of(e), o = down_of(e);
    gated_feed_forward<T, B>(context, x, {g.all, w.gate.slice(0, x.rows), g.first},
                             {u.all, w.up.slice(0, x.rows), u.first}, {o.all, y, o.first});
  }

  // The rest is for experts that stay in the file.

  typename ExpertCache<T, B>::Key key_of(std::size_t e) const { return down_of(e).bytes().data(); }

  /// Has the file read what experts need that are not in the cache, all at once.
  void request(const RouterWorkspace& routes) const {
    for (std::size_t e = 0; e < count; ++e) {
      if (routes.routed_to(e).empty() || cache->has(key_of(e))) continue;
      for (const Part& part : {gate_of(e), up_of(e), down_of(e)}) {
        in_file(part, [](const MappedFile& file, std::uint64_t at, std::uint64_t size) { file.will_need(at, size); });
      }
    }
  }

  Mlp<T, B> repacked(Executor& executor, std::size_t e) const {
    Mlp<T, B> mlp;
    const auto repack = [&](const Part& part, Linear<T, B>& linear) {
      linear.weight = part.all.weight;
      linear.weight.keep_rows(part.first, part.count);
      Arena arena(1);
      linear.weight.repack(executor, arena);
      if (!linear.weight.packed()) return;
      in_file(part, [](const MappedFile& file, std::uint64_t at, std::uint64_t size) { file.drop(at, size); });
    };
    repack(gate_of(e), mlp.gate);
    repack(up_of(e), mlp.up);
    repack(down_of(e), mlp.down);
    return mlp;
  }

  /// Calls f with the file that holds the part, and where.
  template <class F>
  void in_file(const Part& part, F&& f) const {
    const std::span<const std::byte> bytes = part.bytes();
    for (const auto& file : files) {
      const std::less_equal<const std::byte*> before;
      const std::span<const std::byte> all = file->bytes();
      if (!before(all.data(), bytes.data()) || !before(bytes.data() + bytes.size(), all.data() + all.size())) continue;
      return f(*file, static_cast<std::uint64_t>(bytes.data() - all.data()), std::uint64_t{bytes.size()});
    }
  }
};

}  // namespace ple::inline PLE_ABI
