// SPDX-License-Identifier: Apache-2.0
// What a PLE table holds: the tokens whose rows are most like a token's, depth by depth, and how long the rows are.
#include <ple/models.h>
#include <ple/table/table_scan.h>

#include <fmt/core.h>

#include "arguments.h"
#include "output.h"
#include "progress.h"
#include "svg.h"

#include <cmath>
#include <numeric>

constexpr const char* usage =
    "usage: neighbours MODEL TOKEN [options]\n"
    "\n"
    "The tokens nearest to TOKEN by the cosine of their slices of the PLE table, for every depth (layer) and for "
    "whole\n"
    "rows. The table is read once, from its file's beginning to its end. Special tokens, single bytes and unused\n"
    "tokens are left out, for most of them were never trained.\n"
    "\n"
    "  MODEL           a Hugging Face folder of a Gemma 4 model with PLE\n"
    "  TOKEN           a text that is one token, often with the space before it (' fox'), or its number\n"
    "  --count N       neighbours per depth (default: 5)\n"
    "  --depths A,B,C  only these in the list (default: all)\n"
    "  --svg FILE      the picture (default: neighbours.svg)\n"
    "  --threads N     (default: all)\n";

namespace {

using B = ple::DefaultBackend;

/// Tokens as they are printed: quoted, with spaces as spaces; numbers where there is no tokenizer.
class Names {
 public:
  explicit Names(const std::filesystem::path& tokenizer_json) {
    std::error_code error;
    if (std::filesystem::exists(tokenizer_json, error)) tokenizer_ = ple::open_tokenizer(tokenizer_json);
  }

  std::string operator()(ple::Token token) const {
    if (!tokenizer_ || static_cast<std::size_t>(token) >= tokenizer_->vocab_size()) return fmt::format("#{}", token);
    std::string piece(tokenizer_->piece(token)), text = "\"";
    constexpr std::string_view space = "\u2581";
    for (std::size_t at; (at = piece.find(space)) != std::string::npos;) piece.replace(at, space.size(), " ");
    for (const char c : piece) {
      if (c == '\n') {
        text += "\\n";
      } else if (c == '\t') {
        text += "\\t";
      } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
        text += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
      } else {
        if (c == '"' || c == '\\') text += '\\';
        text += c;
      }
    }
    return piece.empty() ? fmt::format("#{}", token) : text + '"';
  }

  ple::Token find(const std::string& word, std::size_t rows) const {
    if (word.find_first_not_of("0123456789") == std::string::npos) {
      return examples::number_of<ple::Token>("TOKEN", word, 0, static_cast<ple::Token>(rows - 1));
    }
    if (!tokenizer_) throw std::runtime_error("the model has no tokenizer.json: give the token as a number");
    if (const auto id = tokenizer_->token_to_id(word)) return *id;
    const auto tokens_of = [&](const std::string& text) { return tokenizer_->encode(text, {.add_special = false}); };
    const std::vector<ple::Token> tokens = tokens_of(word);
    if (tokens.size() == 1) return tokens[0];
    std::string parts;
    for (const ple::Token part : tokens) parts += (parts.empty() ? "" : " ") + (*this)(part);
    const bool with_space = tokens_of(" " + word).size() == 1;
    throw std::runtime_error(fmt::format(
        "'{}' is {} tokens: {}; {}", word, tokens.size(), parts,
        with_space ? fmt::format("with a space before it, it is one: ' {}'", word) : "expected one, or its number"));
  }

  /// The tokens below `rows` that stand for text: neither special, nor bytes, nor unused, most of which no training
  /// ever sees. All, where there is no tokenizer.
  std::vector<ple::Token> of_text(std::size_t rows) const {
    std::vector<ple::Token> tokens;
    for (ple::Token token = 0; static_cast<std::size_t>(token) < rows; ++token) {
      if (!tokenizer_ || is_of_text(token)) tokens.push_back(token);
    }
    return tokens;
  }

 private:
  bool is_of_text(ple::Token token) const {
    if (static_cast<std::size_t>(token) >= tokenizer_->vocab_size() || tokenizer_->is_special(token)) return false;
    const std::string_view piece = tokenizer_->piece(token);
    const bool is_byte = piece.size() == 6 && piece.starts_with("<0x") && piece.ends_with('>');
    return !piece.empty() && !is_byte && !(piece.starts_with("<unused") && piece.ends_with('>'));
  }

  std::optional<ple::Tokenizer> tokenizer_;
};

/// Of every row, for every depth and for the whole row: its length, and its cosine with a token's.
struct Survey {
  std::size_t rows = 0, depths = 0, width = 0;
  std::vector<float> norm, cosine;  // [depths + 1, rows]

  std::span<const float> norms(std::size_t depth) const { return std::span(norm).subspan(depth * rows, rows); }
  std::span<const float> cosines(std::size_t depth) const { return std::span(cosine).subspan(depth * rows, rows); }
};

Survey survey(const ple::TableSource& source, std::span<const float> row, ple::Executor& executor) {
  const std::size_t p = source.layout.width();
  Survey result;
  result.rows = static_cast<std::size_t>(source.rows);
  result.depths = source.layout.layers();
  result.width = p;
  result.norm.resize((result.depths + 1) * result.rows);
  result.cosine.resize(result.norm.size());
  std::vector<float> own(result.depths + 1);
  const auto dot = [&](const float* a, const float* b) {
    float product = 0;
    B::matmul(a, p, 1, p, b, p, 1, &product, 1);
    return product;
  };
  for (std::size_t l = 0; l < result.depths; ++l) own[l] = dot(row.data() + l * p, row.data() + l * p);
  own[result.depths] = std::accumulate(own.begin(), own.end() - 1, 0.0f);
  examples::Progress progress;
  ple::scan_table<B>(source, executor, [&](std::uint64_t first, ple::Rows values) {
    ple::for_each_row(executor, values.rows, 4 * values.cols, [&](std::size_t r) {
      float squares = 0, products = 0;
      const auto note = [&](std::size_t depth, float square, float product) {
        const std::size_t at = depth * result.rows + static_cast<std::size_t>(first) + r;
        result.norm[at] = std::sqrt(square);
        const float both = std::sqrt(square) * std::sqrt(own[depth]);
        result.cosine[at] = both > 0 ? product / both : 0;
      };
      for (std::size_t l = 0; l < result.depths; ++l) {
        const float* slice = values.row(r) + l * p;
        const float square = dot(slice, slice), product = dot(slice, row.data() + l * p);
        note(l, square, product);
        squares += square;
        products += product;
      }
      note(result.depths, squares, products);
    });
    progress("rows read", first + values.rows, source.rows);
  });
  return result;
}

/// The `count` of `tokens` of largest cosine but `token` itself, the nearest first.
std::vector<ple::Token> nearest(std::span<const float> cosines, std::span<const ple::Token> tokens, ple::Token token,
                                std::size_t count) {
  std::vector<ple::Token> order(tokens.begin(), tokens.end());
  std::erase(order, token);
  count = std::min(count, order.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count), order.end(),
                    [&](auto a, auto b) {
                      const float x = cosines[static_cast<std::size_t>(a)], y = cosines[static_cast<std::size_t>(b)];
                      return x != y ? x > y : a < b;
                    });
  order.resize(count);
  return order;
}

void print(const Survey& survey, std::span<const ple::Token> tokens, ple::Token token, const Names& names,
           const std::vector<std::size_t>& depths, std::size_t count) {
  fmt::print("{:<10}{:>10}   nearest to {} ({}), and the cosine\n", "depth", "norm", names(token), token);
  for (const std::size_t depth : depths) {
    fmt::print("{:<10}{:>10.4g}", depth == survey.depths ? "whole row" : fmt::format("{}", depth),
               survey.norms(depth)[static_cast<std::size_t>(token)]);
    for (const ple::Token other : nearest(survey.cosines(depth), tokens, token, count)) {
      fmt::print("   {:<14} {:>5.2f}", names(other), survey.cosines(depth)[static_cast<std::size_t>(other)]);
    }
    fmt::print("\n");
  }
  if (tokens.size() < survey.rows) {
    fmt::print("Left out: {} tokens that are special, single bytes or unused.\n", survey.rows - tokens.size());
  }
}

void draw(const Survey& survey, std::span<const ple::Token> tokens, ple::Token token, const Names& names,
          const std::string& model, const examples::Output& out) {
  constexpr std::size_t bins = 36, followed = 5;
  const std::size_t depths = survey.depths;
  const auto of_tokens = [&](std::span<const float> values) {
    std::vector<float> chosen;
    for (const ple::Token t : tokens) chosen.push_back(values[static_cast<std::size_t>(t)]);
    return chosen;
  };
  float low = std::numeric_limits<float>::max(), high = 0;
  const auto widen = [&](float norm) {
    if (!(norm > 0) || std::isinf(norm)) return;
    low = std::min(low, norm);
    high = std::max(high, norm);
  };
  for (std::size_t l = 0; l < depths; ++l) {
    for (const float norm : of_tokens(survey.norms(l))) widen(norm);
    widen(survey.norms(l)[static_cast<std::size_t>(token)]);
  }
  if (high <= 0) low = 0.1f, high = 1;  // a table of zeros
  const double last = depths > 1 ? static_cast<double>(depths - 1) : 1;
  const examples::Scale x{-0.5, last + 0.5, 84, 720}, y{0.95 * low, 1.05 * high, 356, 106, true};
  const double cell = (x.to - x.from) / (last + 1), height = (y.from - y.to) / static_cast<double>(bins);

  examples::Svg svg(900, 690, "Neighbours in the PLE table");
  svg.text(24, 34, fmt::format("What the PLE table knows of {}", names(token)), {.size = 20, .bold = true});
  svg.text(24, 56,
           fmt::format("{}: {} tokens of text (of {}), {} depths of {} values each", model, tokens.size(), survey.rows,
                       depths, survey.width),
           {.colour = "#666666"});
  std::vector<std::vector<std::size_t>> histogram(depths, std::vector<std::size_t>(bins));
  std::size_t fullest = 1;
  for (std::size_t l = 0; l < depths; ++l) {
    for (const float norm : of_tokens(survey.norms(l))) {
      if (!(norm > 0) || std::isinf(norm)) continue;
      const double share = std::log(norm / y.low) / std::log(y.high / y.low);
      fullest = std::max(fullest, ++histogram[l][std::min(bins - 1, static_cast<std::size_t>(share * bins))]);
    }
  }
  const auto shade_of = [&](double count) {
    return examples::shade(fullest > 1 ? std::log(count) / std::log(static_cast<double>(fullest)) : 1.0);
  };
  examples::vertical_axis(svg, x, y, "How long each depth's vectors are: norms as stored", "log scale");
  for (std::size_t l = 0; l < depths; ++l) {
    for (std::size_t b = 0; b < bins; ++b) {
      if (histogram[l][b] == 0) continue;
      svg.rectangle(x(static_cast<double>(l)) - cell / 2 + 0.5, y.from - static_cast<double>(b + 1) * height, cell - 1,
                    height + 0.4, shade_of(static_cast<double>(histogram[l][b])));  // 0.4: no seams
    }
  }
  constexpr const char* own_colour = "#d55e00";
  std::vector<std::pair<double, double>> own;
  for (std::size_t l = 0; l < depths; ++l) {
    own.emplace_back(x(static_cast<double>(l)), y(survey.norms(l)[static_cast<std::size_t>(token)]));
  }
  svg.path(own, own_colour, 2);
  for (const auto& [px, py] : own) svg.dot(px, py, 3.5, own_colour);
  svg.line(738, 112, 760, 112, own_colour, 2);
  svg.text(768, 116, names(token));
  svg.text(738, 148, "tokens in a bin", {.size = 12, .colour = "#666666"});
  for (std::size_t i = 0; i <= 4; ++i) {
    const double count = std::pow(static_cast<double>(fullest), static_cast<double>(i) / 4);
    svg.rectangle(738, 156 + 18 * static_cast<double>(i), 18, 18, shade_of(count));
    svg.text(764, 169 + 18 * static_cast<double>(i), fmt::format("{:.0f}", count), {.size = 12});
  }

  // The neighbours' cosines, over all tokens' from the 1st to the 99th percentile.
  const auto neighbours = nearest(survey.cosines(depths), tokens, token, followed);
  std::vector<std::pair<float, float>> bands;
  double least = 0, most = 0;
  for (std::size_t l = 0; l < depths; ++l) {
    std::vector<float> sorted;
    for (const ple::Token t : tokens) {
      if (t != token) sorted.push_back(survey.cosines(l)[static_cast<std::size_t>(t)]);
    }
    if (sorted.empty()) sorted.push_back(0);
    std::sort(sorted.begin(), sorted.end());
    bands.emplace_back(sorted[sorted.size() / 100], sorted[sorted.size() - 1 - sorted.size() / 100]);
    least = std::min<double>(least, bands[l].first);
    most = std::max<double>(most, bands[l].second);
    for (const ple::Token other : neighbours) {
      const double cosine = survey.cosines(l)[static_cast<std::size_t>(other)];
      least = std::min(least, cosine);
      most = std::max(most, cosine);
    }
  }
  const double margin = 0.05 * (most - least) + 1e-6;
  const examples::Scale z{least - margin, most + margin, 624, 410};
  examples::vertical_axis(svg, x, z, fmt::format("How alike the nearest tokens are: cosine with {}", names(token)), "");
  for (std::size_t l = 0; l < depths; ++l) {
    svg.rectangle(x(static_cast<double>(l)) - cell / 2 + 0.5, z(bands[l].second), cell - 1,
                  z(bands[l].first) - z(bands[l].second), "#e3e9ef");
  }
  svg.line(x.from, z(0), x.to, z(0), "#888888");
  svg.text(738, 420, "nearest whole rows", {.size = 12, .colour = "#666666"});
  for (std::size_t i = 0; i < neighbours.size(); ++i) {
    std::vector<std::pair<double, double>> points;
    const auto other = static_cast<std::size_t>(neighbours[i]);
    for (std::size_t l = 0; l < depths; ++l)
      points.emplace_back(x(static_cast<double>(l)), z(survey.cosines(l)[other]));
    svg.path(points, examples::colour_of(i), 2);
    for (const auto& [px, py] : points) svg.dot(px, py, 3, examples::colour_of(i));
    const double top = 440 + 20 * static_cast<double>(i);
    svg.line(738, top, 760, top, examples::colour_of(i), 2);
    svg.text(768, top + 4, fmt::format("{} {:.2f}", names(neighbours[i]), survey.cosines(depths)[other]));
  }
  const double key = 448 + 20 * static_cast<double>(neighbours.size());
  svg.rectangle(738, key, 18, 18, "#e3e9ef");
  svg.text(764, key + 13, "98 % of the tokens", {.size = 12});
  examples::depth_axis(svg, x, depths, 624, "depth (layer)");
  out.write(svg.page());
}

std::vector<std::size_t> parse_depths(const std::optional<std::string>& list, std::size_t depths) {
  std::vector<std::size_t> wanted;
  if (!list) {
    wanted.resize(depths);
    std::iota(wanted.begin(), wanted.end(), std::size_t{0});
  } else {
    wanted = examples::numbers_of<std::size_t>("--depths", *list, 0, depths - 1);
  }
  wanted.push_back(depths);  // the whole row
  return wanted;
}

void run(examples::Arguments& arguments) {
  const std::string model_path = arguments.first("MODEL"), word = arguments.first("TOKEN");
  const auto count = arguments.number<std::size_t>("--count", 5, 1);
  const auto list = arguments.text("--depths");
  const std::string svg_path = arguments.text("--svg").value_or("neighbours.svg");
  ple::ThreadPool pool(arguments.threads());
  arguments.done();

  const auto checkpoint = ple::Checkpoint::open(model_path);
  const examples::Output svg(svg_path, checkpoint.files());
  const auto [rows, depths, p] = std::visit(
      [](const auto& config) {
        return std::array{config.vocab_size_per_layer_input, config.num_layers(), config.hidden_size_per_layer_input};
      },
      checkpoint.any_config());
  if (p == 0) throw std::runtime_error(fmt::format("{}: the model has no PLE table", model_path));
  const std::vector<std::size_t> wanted = parse_depths(list, depths);
  ple::PleTable<ple::Any, B> table(rows, depths, p);
  ple::TableSource source;
  source.tensor = checkpoint.tensor(ple::Parameter::ple_table);
  table.load(source.tensor, ple::Mapped{});
  source.layout = table.layout();
  source.rows = table.rows();
  const Names names(checkpoint.tokenizer_file());
  const ple::Token token = names.find(word, table.rows());

  std::vector<float> row(table.cols());
  ple::RowSelection selection = table.make_selection(1);
  table.select(std::span(&token, 1), 1, token, selection);
  table.gather_stored(pool, selection, 0, 0, depths, {row.data(), 1, row.size(), row.size()});
  const Survey result = survey(source, row, pool);
  const std::vector<ple::Token> tokens = names.of_text(table.rows());
  print(result, tokens, token, names, wanted, count);
  draw(result, tokens, token, names, examples::name_of_model(model_path), svg);
  fmt::print("{} shows it.\n", svg.path());
}

}  // namespace

int main(int argc, char** argv) { return examples::run(usage, argc, argv, run); }
