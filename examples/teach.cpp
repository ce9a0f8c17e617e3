// SPDX-License-Identifier: Apache-2.0
// Teaches a model something about a name: trains only the PLE table's rows of the name's tokens. What it learns is an
// adapter of these rows. A text without these tokens is read as before, to the bit.
#include <ple/models.h>
#include <ple/train/dataset.h>
#include <ple/train/language_trainer.h>
#include <ple/train/pack_texts.h>
#include <ple/train/trained_adapter.h>

#include <fmt/core.h>

#include "arguments.h"
#include "sequences.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

constexpr const char* usage =
    "usage: teach MODEL --token NAME --about FILE [options]\n"
    "\n"
    "  MODEL            a Hugging Face folder or a GGUF file of a Gemma 4 model with a PLE table, of any number type\n"
    "  --token NAME     the PLE table's rows of its tokens are trained. Inside a text a word begins with a space:\n"
    "                   ' Zorblax'. May be repeated, such as for the same name without a space\n"
    "  --about FILE     what to learn: JSON lines, {\"text\": ...} or {\"messages\": [...]}, of which the answers are\n"
    "                   learnt; or a .txt file. Of each text, what comes after the name is learnt\n"
    "  --out FOLDER     gets the rows, as an adapter that PEFT loads, too (default: what was learnt is only shown)\n"
    "  --prompt TEXT    let the model continue it, before and after (default: the beginning of FILE's first text, up\n"
    "                   to the name, or to the answer)\n"
    "  --chat TEXT      ask it, before and after\n"
    "  --max-tokens N   of what it then writes (default: 40)\n"
    "  --held-out FILE  texts to be judged by (default: two that the model writes before it learns)\n"
    "  --steps N        at most (default: 300)\n"
    "  --until X        stop once the loss of what is learnt is as low (default: 0.05 nats a token)\n"
    "  --rate X         how far a number of a row moves in a step, in RMS of the table's values; falls as a cosine\n"
    "                   (default: 1)\n"
    "  --length N       most tokens of a sequence, in which short texts are packed (default: 512)\n"
    "  --threads N      (default: all)\n";

namespace {

struct Options {
  std::string model, about;
  std::vector<std::string> names;
  std::optional<std::string> out, prompt, chat, held_out;
  std::size_t max_tokens = 40, steps = 300;
  double until = 0.05;
  ple::TrainingOptions training;
};

Options read_options(examples::Arguments& arguments) {
  Options o;
  o.model = arguments.first("MODEL");
  while (auto name = arguments.text("--token")) o.names.push_back(*std::move(name));
  if (o.names.empty()) examples::refuse("--token NAME is missing");
  const auto about = arguments.text("--about");
  if (!about) examples::refuse("--about FILE is missing");
  o.about = *about;
  o.out = arguments.text("--out");
  o.prompt = arguments.text("--prompt");
  o.chat = arguments.text("--chat");
  if (o.chat && o.prompt) examples::refuse("--chat asks, --prompt lets the model continue: give one of them");
  o.max_tokens = arguments.number<std::size_t>("--max-tokens", o.max_tokens, 1, ple::most_tokens_at_once);
  o.held_out = arguments.text("--held-out");
  o.steps = arguments.number<std::size_t>("--steps", o.steps, 1);
  o.until = arguments.number<double>("--until", o.until, 0);
  ple::TrainingOptions& t = o.training;
  t.adapters.clear();
  t.rows = true;
  t.row_share = arguments.number<double>("--rate", 1, 0);
  t.schedule = {.steps = o.steps};
  t.gradient.max_tokens = arguments.number<std::size_t>("--length", 512, 2, ple::most_tokens_at_once);
  t.gradient.threads = ple::ThreadPool(arguments.threads()).concurrency();
  arguments.done();
  return o;
}

/// Where what follows the first of the names begins; nothing if none of them is there.
std::optional<std::size_t> after_name(std::span<const ple::Token> text,
                                      const std::vector<std::vector<ple::Token>>& names) {
  std::size_t first = text.size(), after = 0;
  for (const auto& name : names) {
    const auto found = std::search(text.begin(), text.end(), name.begin(), name.end());
    const auto at = static_cast<std::size_t>(found - text.begin());
    if (at < first) first = at, after = at + name.size();
  }
  return first < text.size() ? std::optional(after) : std::nullopt;
}

class Lesson {
 public:
  Lesson(Options options, const ple::Checkpoint& checkpoint)
      : o_(std::move(options)),
        checkpoint_(checkpoint),
        tokenizer_(ple::open_tokenizer(checkpoint)),
        pool_(o_.training.gradient.threads) {
    read_names();
    read_about();
    const auto held_out = o_.held_out ? read(*o_.held_out) : std::vector<ple::TrainingText>();
    trainer_ = ple::load_trainer(checkpoint, o_.training);
    held_out_ = ple::pack_texts(o_.held_out ? held_out : own_texts(), o_.training.gradient.max_tokens);
  }

  void run() {
    const auto about = examples::sequences_of(about_), held_out = examples::sequences_of(held_out_);
    const double about_before = trainer_->evaluate(pool_, about), held_out_before = trainer_->evaluate(pool_, held_out);
    fmt::print("before: {}\n", answer());
    static_cast<void>(std::fflush(stdout));
    learn(about);
    fmt::print("after:  {}\n", answer());
    fmt::print("loss of what is learnt before: {:.4f}, after: {:.4f} nats a token\n", about_before,
               trainer_->evaluate(pool_, about));
    compare_held_out(held_out_before, trainer_->evaluate(pool_, held_out));
    if (!o_.out) return;
    ple::write_peft_adapter(*o_.out, trainer_->trained(), ple::peft_base(o_.model));
    fmt::print("to try it: generate {} --adapter {}\n", o_.model, *o_.out);
  }

 private:
  /// The tokens whose rows are trained.
  void read_names() {
    std::set<ple::Token> tokens;
    for (const std::string& name : o_.names) {
      const auto& all = names_.emplace_back(tokenizer_.encode(name, {.add_special = false, .parse_special = false}));
      if (all.empty()) examples::refuse("--token: '", name, "' has no tokens");
      std::string pieces;
      for (const ple::Token token : all) {
        pieces += fmt::format("{}'{}'", pieces.empty() ? "" : ", ", tokenizer_.piece(token));
        tokens.insert(token);
      }
      if (all.size() == 1) {
        fmt::print("'{}' is a token: {}\n", name, pieces);
      } else {
        fmt::print("'{}' has {} tokens, which other words may share: {}\n", name, all.size(), pieces);
      }
    }
    o_.training.only_rows.assign(tokens.begin(), tokens.end());
  }

  std::vector<ple::TrainingText> read(const std::string& path) const {
    const auto format = ple::chat_format(tokenizer_, checkpoint_.chat_template(), /*is_large=*/false);
    const std::size_t length = o_.training.gradient.max_tokens;
    return ple::read_dataset(path, tokenizer_, format, {.max_length = length, .windows = true}).texts;
  }

  /// What comes before the name does not depend on its rows, so it does not count.
  void read_about() {
    std::vector<ple::TrainingText> texts = read(o_.about);
    const std::size_t all = texts.size();
    std::erase_if(texts, [&](ple::TrainingText& text) {
      const auto after = after_name(text.tokens, names_);
      if (after) std::fill_n(text.learnt.begin(), *after, std::uint8_t{0});
      return !after || text.learnt_count() == 0;
    });
    if (texts.empty()) {
      examples::refuse(o_.about, ": has nothing to learn after '", o_.names[0], "' in any of its ", std::to_string(all),
                       " texts; at the beginning of a text, a word has no space before it");
    }
    std::size_t tokens = 0, learnt = 0;
    for (const ple::TrainingText& text : texts) tokens += text.tokens.size(), learnt += text.learnt_count();
    fmt::print("learns {} of the {} tokens of {} texts: those after the name", learnt, tokens, texts.size());
    if (texts.size() < all) fmt::print("; texts without it, which are left out: {}", all - texts.size());
    fmt::print("\n");
    const ple::TrainingText& first = texts.front();
    asked_.assign(first.tokens.begin(), first.tokens.begin() + (std::find(first.learnt.begin(), first.learnt.end(), 1) -
                                                                first.learnt.begin()));
    about_ = ple::pack_texts(texts, o_.training.gradient.max_tokens);
  }

  /// Sessions read with the rows as they are now.
  ple::SessionOptions session_options(std::size_t context) {
    ple::SessionOptions options{.context = std::min(context, trainer_->model().max_position_embeddings()),
                                .threads = pool_.concurrency(),
                                .executor = &pool_};
    if (!trainer_->trained().rows.empty()) {
      options.adapters.push_back({std::make_shared<const ple::Adapter>(ple::make_adapter(trainer_->trained()))});
    }
    return options;
  }

  std::vector<ple::Token> write(std::span<const ple::Token> prompt, const ple::SamplingOptions& sampling,
                                std::size_t max_tokens) {
    ple::Session session(trainer_->model(), session_options(prompt.size() + max_tokens));
    session.read(prompt);
    ple::Generation generation(session, {sampling, checkpoint_.stop_tokens(), max_tokens});
    std::vector<ple::Token> tokens;
    while (const auto token = generation.next()) tokens.push_back(*token);
    return tokens;
  }

  std::vector<ple::TrainingText> own_texts() {
    const auto prefix = tokenizer_.prefix();
    if (prefix.empty()) examples::refuse("--held-out FILE is missing: no <bos> begins a text of this model's own");
    const std::size_t most = std::min<std::size_t>(128, o_.training.gradient.max_tokens - prefix.size());
    std::vector<ple::TrainingText> texts(2);
    for (std::size_t i = 0; i < texts.size(); ++i) {
      ple::SamplingOptions sampling = checkpoint_.recommended_sampling();
      sampling.seed = i + 1;
      texts[i].tokens.assign(prefix.begin(), prefix.end());
      for (const ple::Token token : write(prefix, sampling, most)) texts[i].tokens.push_back(token);
      texts[i].learnt.assign(texts[i].tokens.size(), 1);
    }
    return texts;
  }

  /// The likeliest tokens, so that only what was learnt makes a difference.
  std::string answer() {
    if (o_.chat) {
      const ple::ChatOptions options{.sampling = ple::SamplingOptions{},
                                     .max_tokens = o_.max_tokens,
                                     .session = session_options(std::size_t{4096})};
      return ple::Chat(trainer_->model(), checkpoint_, options).ask(*o_.chat);
    }
    std::vector<ple::Token> text = o_.prompt ? tokenizer_.encode(*o_.prompt) : asked_;
    for (const ple::Token token : write(text, {}, o_.max_tokens)) text.push_back(token);
    return tokenizer_.decode(text);
  }

  void learn(std::span<const ple::TrainingSequence> about) {
    const auto start = std::chrono::steady_clock::now();
    const auto seconds = [&] {
      return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    for (double loss = o_.until + 1; loss > o_.until && trainer_->steps() < o_.steps;) {
      loss = trainer_->step(pool_, about).loss;
      fmt::print(stderr, "\rstep {} of at most {}: loss {:.3f}, {:.1f} s   ", trainer_->steps(), o_.steps, loss,
                 seconds());
    }
    fmt::print(stderr, "\r{:78}\r", "");
    const auto& rows = trainer_->trained().rows;
    fmt::print("{} steps in {:.1f} s: {} rows of the PLE table, of {} numbers\n", trainer_->steps(), seconds(),
               rows.size(), rows.begin()->second.values.size());
  }

  void compare_held_out(double before, double after) const {
    std::size_t tokens = 0, changed = 0;
    for (const ple::PackedTexts& pack : held_out_) {
      tokens += pack.tokens.size();
      for (const ple::Token token : pack.tokens) {
        changed += trainer_->trained().rows.count(static_cast<ple::RowId>(token));
      }
    }
    fmt::print(
        "held-out loss before: {:.4f}, after: {:.4f} nats a token; {} of its {} tokens have a row that was trained",
        before, after, changed, tokens);
    fmt::print("{}\n", before == after ? ": the same to the bit" : "");
  }

  Options o_;
  const ple::Checkpoint& checkpoint_;
  ple::Tokenizer tokenizer_;
  ple::ThreadPool pool_;
  std::vector<std::vector<ple::Token>> names_;
  std::vector<ple::Token> asked_;
  std::vector<ple::PackedTexts> about_, held_out_;
  std::unique_ptr<ple::LanguageTrainer> trainer_;
};

void run(examples::Arguments& arguments) {
  Options o = read_options(arguments);
  const ple::Checkpoint checkpoint = ple::Checkpoint::open(o.model);
  if (!checkpoint.has(ple::Parameter::ple_table)) examples::refuse(o.model, " has no PLE table");
  if (o.out) std::filesystem::create_directories(*o.out);  // not after the work
  Lesson(std::move(o), checkpoint).run();
}

}  // namespace

int main(int argc, char** argv) { return examples::run(usage, argc, argv, run); }
