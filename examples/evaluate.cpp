// SPDX-License-Identifier: Apache-2.0
// How well a model predicts a text, and how far its predictions are from another file's of the same model.
#include "backend.h"

#include <ple/models.h>
#include <ple/run/kept_predictions.h>
#include <ple/run/perplexity.h>

#include <fmt/core.h>

#include "arguments.h"
#include "kv_cache.h"
#include "output.h"
#include "progress.h"
#include "svg.h"

#include <fstream>
#include <iterator>

constexpr const char* usage =
    "usage: evaluate MODEL FILE [options]\n"
    "\n"
    "  MODEL           a Hugging Face folder or a GGUF file\n"
    "  FILE            the text\n"
    "  --context N     tokens of a window (default: 512)\n"
    "  --stride N      windows begin N tokens apart, and the last N of each are scored (default: windows follow each\n"
    "                  other, and tokens are scored after the first half and one more)\n"
    "  --save OUT      keep the predictions: for each the likeliest tokens, 99.9 % of what may come or 8192\n"
    "  --against SAVED compare with predictions that --save kept: of a model with the same vocabulary, on the same "
    "text,\n"
    "                  with the same windows\n"
    "  --svg OUT       the picture (default: none)\n"
    "  --kv TYPE       keys and values are kept in: f32 (default), bf16, f16, q8_0\n"
    "  --threads N     (default: all)\n"
    "  --backend scalar|native|auto\n"
    "\n"
    "Perplexity is exp of the mean of -log P(token) over the scored tokens, as llama.cpp's `perplexity` defines it: "
    "the\n"
    "text is read window by window, each from an empty cache with <bos> in place of its first token; what is left at "
    "the\n"
    "end is not scored. +- is the standard error of the mean.\n";

namespace {

constexpr std::size_t buckets = 8;  // of positions in a window

struct Mean {
  double sum = 0, squares = 0;
  std::size_t count = 0;

  void add(double value) {
    sum += value;
    squares += value * value;
    ++count;
  }
  double value() const { return sum / static_cast<double>(count); }
  double standard_error() const {
    const double n = static_cast<double>(count), variance = squares / n - value() * value();
    return count > 1 ? std::sqrt(std::max(variance, 0.0) / (n - 1)) : 0;
  }
};

/// Of one scored token.
struct Scored {
  double loss = 0, other_loss = 0;
  ple::KeptDivergence divergence;
};

/// Means over the tokens at positions [first, end) of their windows.
struct Bucket {
  std::size_t first = 0, end = 0;
  Mean loss = {}, other_loss = {}, ratio = {}, kl = {}, difference = {}, kept = {}, same_top = {};

  void add(const Scored& scored) {
    loss.add(scored.loss);
    other_loss.add(scored.other_loss);
    ratio.add(scored.loss - scored.other_loss);
    kl.add(scored.divergence.kl);
    difference.add(scored.divergence.difference);
    kept.add(scored.divergence.kept);
    same_top.add(scored.divergence.same_top ? 1 : 0);
  }
};

struct Report {
  std::string model, text, against;
  std::size_t tokens = 0, windows = 0, context = 0;
  Bucket all;
  std::vector<Bucket> by_position;
};

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file.eof() && file.fail()) examples::refuse(path, ": cannot read");
  return text;
}

void check_same(const ple::KeptHeader& saved, const ple::KeptHeader& ours, const std::string& path) {
  const auto check = [&](const char* what, std::uint64_t theirs, std::uint64_t expected) {
    if (theirs != expected)
      examples::refuse(path, ": was saved with ", what, " ", std::to_string(theirs), ", expected ",
                       std::to_string(expected));
  };
  check("a vocabulary of", saved.vocab_size, ours.vocab_size);
  check("--context", saved.context, ours.context);
  check("--stride", saved.stride, ours.stride);
  check("a text of as many tokens as", saved.tokens, ours.tokens);
  check("as many scored tokens as", saved.scored, ours.scored);
}

Report measure(const ple::LanguageModel& model, std::span<const ple::Token> tokens,
               const ple::PerplexityOptions& options, const ple::SessionOptions& session, ple::Executor& executor,
               const ple::KeptPredictions* against, ple::KeptPredictionsWriter* writer) {
  const auto windows = ple::scored_windows(tokens.size(), options);
  const std::size_t skipped = windows[0].first, scored = options.context - skipped;
  Report report;
  report.tokens = tokens.size();
  report.windows = windows.size();
  report.context = options.context;
  report.all = {.first = skipped, .end = options.context};
  for (std::size_t b = 0; b < std::min(buckets, scored); ++b) {
    const std::size_t count = std::min(buckets, scored);
    report.by_position.push_back({.first = skipped + scored * b / count, .end = skipped + scored * (b + 1) / count});
  }
  std::vector<Scored> of_window(scored);
  std::vector<ple::KeptPrediction> kept(writer ? scored : 0);
  examples::Progress progress;
  std::size_t w = 0;
  const auto each = [&](std::size_t i, std::span<const float> logits) {
    const std::size_t at = i - windows[w].first;
    double log_sum = 0;
    of_window[at].loss = ple::token_loss(logits, tokens[i], &log_sum);
    if (against) {
      of_window[at].other_loss = static_cast<double>(against->loss(w * scored + at));
      of_window[at].divergence = against->compare(w * scored + at, logits, log_sum);
    }
    if (writer) kept[at] = ple::keep_prediction(logits, tokens[i]);
  };
  const auto window_done = [&](std::size_t) {
    for (std::size_t at = 0; at < scored; ++at) {
      report.all.add(of_window[at]);
      for (Bucket& bucket : report.by_position) {
        if (skipped + at >= bucket.first && skipped + at < bucket.end) bucket.add(of_window[at]);
      }
      if (writer) writer->write(kept[at]);
    }
    progress("windows", ++w, windows.size());
    return true;
  };
  ple::predict_windows(model, tokens, windows, session, options.bos, executor, each, window_done);
  return report;
}

void print(const Report& report) {
  const bool against = !report.against.empty();
  fmt::print("{}: {} tokens; {} windows of {}, of each the last {} scored: {} tokens\n\n", report.text, report.tokens,
             report.windows, report.context, report.all.end - report.all.first, report.all.loss.count);
  fmt::print("{:>13} {:>8} {:>8} {:>11}", "position", "tokens", "loss", "perplexity");
  if (against) fmt::print(" {:>10} {:>9} {:>9} {:>11}", "other loss", "KL", "same top", "|d log P|");
  fmt::print("\n");
  const auto line = [&](const std::string& name, const Bucket& bucket) {
    fmt::print("{:>13} {:>8} {:>8.4f} {:>11.4f}", name, bucket.loss.count, bucket.loss.value(),
               std::exp(bucket.loss.value()));
    if (against) {
      fmt::print(" {:>10.4f} {:>9.2e} {:>7.2f} % {:>11.4f}", bucket.other_loss.value(), bucket.kl.value(),
                 100 * bucket.same_top.value(), bucket.difference.value());
    }
    fmt::print("\n");
  };
  for (const Bucket& bucket : report.by_position) {
    line(fmt::format("{} to {}", bucket.first, bucket.end - 1), bucket);
  }
  line("all", report.all);
  const double perplexity = std::exp(report.all.loss.value());
  fmt::print("\nperplexity {:.4f} +- {:.4f}, loss {:.5f} nats per token\n", perplexity,
             perplexity * report.all.loss.standard_error(), report.all.loss.value());
  if (!against) return;
  fmt::print(
      "against {}: perplexity {:.4f}, ratio {:.5f} +- {:.5f}\n"
      "KL {:.3e} +- {:.1e} nats: of what is predicted, {:.4f} % in tokens that were kept, the others count as one\n"
      "the same likeliest token: {:.2f} %; mean logit difference {:.4f} nats (log P, over the tokens kept)\n",
      report.against, std::exp(report.all.other_loss.value()), std::exp(report.all.ratio.value()),
      std::exp(report.all.ratio.value()) * report.all.ratio.standard_error(), report.all.kl.value(),
      report.all.kl.standard_error(), 100 * report.all.kept.value(), 100 * report.all.same_top.value(),
      report.all.difference.value());
}

/// A line of means by position, with bars of two standard errors.
void draw_means(examples::Svg& svg, const Report& report, Mean Bucket::*mean, const examples::Scale& x,
                const examples::Scale& y, const char* colour) {
  std::vector<std::pair<double, double>> points;
  for (const Bucket& bucket : report.by_position) {
    const double px = x(static_cast<double>(bucket.first + bucket.end - 1) / 2), value = (bucket.*mean).value();
    const double error = 2 * (bucket.*mean).standard_error();
    svg.line(px, y(value - error), px, y(value + error), colour);
    points.emplace_back(px, y(value));
  }
  svg.path(points, colour, 2);
  for (const auto& [px, py] : points) svg.dot(px, py, 3.5, colour);
}

examples::Scale scale_of(const Report& report, std::initializer_list<Mean Bucket::*> means, double from, double to) {
  double low = 1e300, high = -1e300;
  for (const Bucket& bucket : report.by_position) {
    for (const auto mean : means) {
      const double value = (bucket.*mean).value(), error = 2 * (bucket.*mean).standard_error();
      low = std::min(low, value - error);
      high = std::max(high, value + error);
    }
  }
  const double margin = high > low ? 0.08 * (high - low) : 1e-9 + 0.1 * std::fabs(high);
  return {std::max(0.0, low - margin), high + margin, from, to};  // neither is negative
}

void draw(const Report& report, const examples::Output& out) {
  const bool against = !report.against.empty();
  examples::Svg svg(900, against ? 660 : 420, "How well a text is predicted");
  svg.text(24, 34, fmt::format("{} predicts {}", report.model, report.text), {.size = 20, .bold = true});
  svg.text(24, 56,
           fmt::format("perplexity {:.3f} over {} tokens in {} windows of {}", std::exp(report.all.loss.value()),
                       report.all.loss.count, report.windows, report.context),
           {.colour = "#666666"});
  const examples::Scale x{static_cast<double>(report.all.first), static_cast<double>(report.all.end - 1), 84, 860};
  const auto y = against ? scale_of(report, {&Bucket::loss, &Bucket::other_loss}, 340, 110)
                         : scale_of(report, {&Bucket::loss}, 340, 110);
  examples::vertical_axis(svg, x, y, "Loss by position in the window", "nats per token, with 2 standard errors");
  if (against) {
    draw_means(svg, report, &Bucket::other_loss, x, y, examples::colour_of(1));
    const auto z = scale_of(report, {&Bucket::kl}, 590, 420);
    examples::vertical_axis(svg, x, z, fmt::format("KL({} || {})", report.against, report.model), "nats per token");
    draw_means(svg, report, &Bucket::kl, x, z, examples::colour_of(2));
    svg.text(96, 130, report.model, {.size = 12, .colour = examples::colour_of(0)});
    svg.text(96, 146, report.against, {.size = 12, .colour = examples::colour_of(1)});
  }
  draw_means(svg, report, &Bucket::loss, x, y, examples::colour_of(0));
  for (const double tick : x.ticks(8)) {
    svg.text(x(tick), against ? 608 : 358, examples::number_text(tick), {.size = 12, .anchor = "middle"});
  }
  svg.text((x.from + x.to) / 2, against ? 630 : 382, "position in the window", {.anchor = "middle"});
  out.write(svg.page());
}

void run(examples::Arguments& arguments) {
  const std::string path = arguments.first("MODEL"), text_path = arguments.first("FILE");
  ple::PerplexityOptions options;
  options.context = arguments.number<std::size_t>("--context", options.context, 4);
  options.stride = arguments.number<std::size_t>("--stride", 0, 1);
  const auto save = arguments.text("--save"), against_path = arguments.text("--against"),
             svg_path = arguments.text("--svg");
  const ple::SessionOptions session{.kv_cache_dtype = examples::kv_cache_dtype(arguments)};
  const std::string backend = arguments.text("--backend").value_or("auto");
  ple::ThreadPool pool(arguments.threads());
  arguments.done();

  const auto checkpoint = ple::Checkpoint::open(path);
  std::vector<std::filesystem::path> inputs = checkpoint.files();
  inputs.emplace_back(text_path);
  if (against_path) inputs.emplace_back(*against_path);
  std::optional<examples::Output> svg;
  if (svg_path) svg.emplace(*svg_path, inputs);
  const auto tokenizer = ple::open_tokenizer(checkpoint);
  const std::vector<ple::Token> tokens = tokenizer.encode(read_text(text_path));
  if (!tokenizer.prefix().empty()) options.bos = tokenizer.prefix().front();
  const auto windows = ple::scored_windows(tokens.size(), options);

  const auto model = examples::load_model(checkpoint, backend);
  const ple::KeptHeader header{.vocab_size = model->vocab_size(),
                               .tokens = tokens.size(),
                               .context = options.context,
                               .stride = options.stride,
                               .scored = windows.size() * (windows[0].end - windows[0].first)};
  std::optional<ple::KeptPredictions> against;
  if (against_path) {
    against.emplace(*against_path);
    check_same(against->header(), header, *against_path);
    if (!std::equal(tokens.begin(), tokens.end(), against->tokens().begin())) {
      examples::refuse(*against_path, ": was saved for another text, or another tokenizer's tokens");
    }
  }
  std::optional<ple::KeptPredictionsWriter> writer;
  if (save) writer.emplace(*save, ple::identities_of(inputs), header, tokens);
  Report report =
      measure(*model, tokens, options, session, pool, against ? &*against : nullptr, writer ? &*writer : nullptr);
  report.model = examples::name_of_model(path);
  report.text = examples::name_of_model(text_path);
  if (against_path) report.against = examples::name_of_model(*against_path);
  if (writer) {
    writer->finish();
    fmt::print(stderr, "{}: {} predictions in {:.1f} MiB\n", *save, header.scored,
               static_cast<double>(writer->size()) / 1048576);
  }
  print(report);
  if (!svg) return;
  draw(report, *svg);
  fmt::print("{} shows it.\n", svg->path());
}

}  // namespace

int main(int argc, char** argv) { return examples::run(usage, argc, argv, run); }
