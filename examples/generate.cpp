// SPDX-License-Identifier: Apache-2.0
// Talks with a model, or lets it continue a text; prints as it goes, and its speed at the end.
#include "backend.h"

#include <ple/models.h>

#include <fmt/core.h>

#include "adapters.h"
#include "arguments.h"
#include "kv_cache.h"
#include "slice_options.h"
#include "table.h"

#include <chrono>
#include <filesystem>
#include <iostream>

const std::string usage =
    std::string(
        "usage: generate MODEL [--chat TEXT | --prompt TEXT] [options]\n"
        "\n"
        "  MODEL                    a Hugging Face folder or a GGUF file of a Gemma 4, 3n or 3 model\n"
        "  --chat TEXT              one question, one answer; without --chat and --prompt: a conversation\n"
        "  --prompt TEXT            continue this text\n"
        "  --prompt-tokens N        continue N made-up tokens (for models without a tokenizer)\n"
        "  --system TEXT            what the model is told before a conversation\n"
        "  --thinking               let it think before it answers, and show the thoughts\n"
        "  --save FILE, --resume FILE\n"
        "                           write the session to a file at the end; go on from one that was written\n"
        "  --max-tokens N           of an answer (default: until it ends, or the context is full)\n"
        "  --context N              most positions (default: 4096 or the model's limit)\n"
        "  --kv TYPE                keys and values are kept in: f32 (default), bf16, f16, q8_0\n"
        "  --temperature X, --top-k N, --top-p X, --min-p X, --repetition-penalty X, --seed N\n"
        "                           (default: what the model recommends; temperature 0: the likeliest token)\n"
        "  --adapter FOLDER[=SCALE] an adapter that PEFT or ple wrote; may be repeated: what they add is summed up\n"
        "  --table mapped|resident|streamed|none\n"
        "                           where the PLE table lives (default: mapped); none: leave it away\n"
        "  --budget MIB             of rows that a streamed table keeps (default: 64), or pages a mapped one does (no\n"
        "                           limit); or with a unit: 512KiB, 1.5GiB\n"
        "  --direct                 a streamed table is read past the system's page cache\n"
        "  --table-file FILE        take the PLE table from a file that `pack` wrote\n") +
    examples::slice_usage +
    "  --threads N              (default: all)\n"
    "  --backend scalar|native|auto\n";

namespace {

class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// Shows on stderr how far a prompt that takes a while has been read; wipes the line at its end.
ple::PromptProgress show_progress() {
  return [watch = Stopwatch(), shown = false](std::size_t done, std::size_t total) mutable {
    if (done < total && watch.seconds() > 0.5) {
      fmt::print(stderr, "\rreading the prompt: {} of {} tokens, {:.0f} tok/s ", done, total,
                 static_cast<double>(done) / watch.seconds());
      shown = true;
    } else if (done == total && shown) {
      fmt::print(stderr, "\r{:60}\r", "");
    }
    return true;
  };
}

/// Prompt and answer, timed apart.
struct Speed {
  std::size_t prompt_tokens = 0, tokens = 0;
  double prompt_seconds = 0, seconds = 0;

  void print(double open_seconds) const {
    const auto rate = [](std::size_t n, double s) { return s > 0 ? static_cast<double>(n) / s : 0.0; };
    const ple::MemoryUse memory = ple::memory_use();
    fmt::print(stderr,
               "\nopened in {:.2f} s | prompt: {} tokens, {:.1f} tok/s | written: {} tokens, {:.1f} tok/s | "
               "memory: {:.0f} MiB, {:.0f} MiB of it not backed by a file\n",
               open_seconds, prompt_tokens, rate(prompt_tokens, prompt_seconds), tokens, rate(tokens, seconds),
               static_cast<double>(memory.resident) / 1048576, static_cast<double>(memory.anonymous) / 1048576);
  }
};

/// On stderr, what a table has read; nothing for one that reads nothing itself.
void print_counters(const ple::TableCounters& counters) {
  if (counters.bytes_read == 0) return;
  fmt::print(stderr, "PLE table: {} rows asked for, {} of them hits, {:.1f} MiB read, {} waits\n", counters.rows_asked,
             counters.hits, static_cast<double>(counters.bytes_read) / 1048576, counters.waits);
}

void print_piece(std::string_view piece) {
  fmt::print("{}", piece);
  std::fflush(stdout);
}

void answer(ple::Chat& chat, const std::string& question, Speed& speed) {
  const std::size_t before = chat.session().position();
  const Stopwatch reading;
  const auto reply = chat.say(question, show_progress());
  speed.prompt_tokens += chat.session().position() - before;
  speed.prompt_seconds += reading.seconds();
  const Stopwatch writing;
  for (std::string_view piece : reply) print_piece(piece);
  speed.tokens += chat.generation()->count();
  speed.seconds += writing.seconds();
  fmt::print("\n");
  if (chat.generation()->reason() == ple::StopReason::context_full) fmt::print(stderr, "(the context is full)\n");
}

void continue_text(ple::Session& session, std::span<const ple::Token> prompt, const ple::Tokenizer* tokenizer,
                   const ple::GenerationOptions& options, Speed& speed) {
  const Stopwatch reading;
  session.read(prompt, show_progress());
  speed.prompt_tokens = prompt.size();
  speed.prompt_seconds = reading.seconds();
  const Stopwatch writing;
  ple::Generation generation(session, options);
  std::optional<ple::StreamDecoder> decoder;
  if (tokenizer) decoder.emplace(*tokenizer);
  while (const auto token = generation.next())
    print_piece(decoder ? decoder->push(*token) : fmt::format("{} ", *token));
  if (decoder) print_piece(decoder->finish());
  fmt::print("\n");
  speed.tokens = generation.count();
  speed.seconds = writing.seconds();
  generation.flush();
}

/// `--temperature` and the like, on top of what the model recommends.
ple::SamplingOptions sampling(examples::Arguments& arguments, ple::SamplingOptions options) {
  options.temperature = arguments.number("--temperature", options.temperature, 0.0f);
  options.top_k = arguments.number("--top-k", options.top_k);
  const auto share = [&](const char* name, float otherwise) { return arguments.number(name, otherwise, 0.0f, 1.0f); };
  options.top_p = share("--top-p", options.top_p);
  options.min_p = share("--min-p", options.min_p);
  options.repetition_penalty = arguments.number("--repetition-penalty", options.repetition_penalty, 0.0f);
  if (options.repetition_penalty == 0)
    examples::refuse("--repetition-penalty: expected more than 0; 1 changes nothing");
  options.seed = arguments.number("--seed", options.seed);
  return options;
}

/// Each `--adapter FOLDER` or FOLDER=SCALE.
std::vector<ple::SessionAdapter> adapters(examples::Arguments& arguments) {
  std::vector<ple::SessionAdapter> all;
  while (auto folder = arguments.text("--adapter")) {
    all.push_back(examples::adapter_of("--adapter", *std::move(folder)));
  }
  return all;
}

void run(examples::Arguments& arguments) {
  const Stopwatch opening;
  const std::string path = arguments.first("MODEL");
  const auto checkpoint = ple::Checkpoint::open(
      path, {.table = arguments.text("--table-file").value_or(""), .slice = examples::slice_options(arguments)});
  const auto chat_text = arguments.text("--chat"), prompt = arguments.text("--prompt");
  if (chat_text && prompt) examples::refuse("--chat asks, --prompt lets the model continue: give one of them");
  const auto made_up = arguments.number<std::size_t>("--prompt-tokens", 0, 1);
  const auto save = arguments.text("--save"), resume = arguments.text("--resume");
  const std::string backend = arguments.text("--backend").value_or("auto");
  const ple::LoadOptions load{.table = examples::table_storage(arguments)};
  ple::ChatOptions options;
  options.system = arguments.text("--system").value_or("");
  options.thinking = options.show_thinking = arguments.flag("--thinking");
  options.max_tokens = arguments.number<std::size_t>("--max-tokens", 0, 1);
  options.session.context = arguments.number<std::size_t>("--context", 0, 1);
  options.session.kv_cache_dtype = examples::kv_cache_dtype(arguments);
  options.session.threads = arguments.threads();
  options.session.adapters = adapters(arguments);
  options.sampling = sampling(arguments, checkpoint.recommended_sampling());
  arguments.done();
  if (save) ple::check_output_path(*save, ple::identities_of(checkpoint.files()));  // not after the answer

  if (made_up == 0 && !std::filesystem::exists(checkpoint.tokenizer_file())) {
    examples::refuse(path, ": has no tokenizer; --prompt-tokens N makes up tokens to continue");
  }

  const auto loaded = examples::load_model(checkpoint, backend, load);
  const ple::LanguageModel& model = *loaded;
  Speed speed;
  if (prompt || made_up > 0) {
    std::optional<ple::Tokenizer> tokenizer;
    std::vector<ple::Token> tokens(made_up);
    for (std::size_t i = 0; i < made_up; ++i) tokens[i] = static_cast<ple::Token>((i * 7919 + 2) % model.vocab_size());
    if (prompt) {
      tokenizer = ple::open_tokenizer(checkpoint);
      tokens = tokenizer->encode(*prompt, {.add_special = !resume});
    }
    ple::Session session(model, options.session);
    if (resume) ple::SavedSession::load(session, *resume);
    const double open_seconds = opening.seconds();
    const ple::GenerationOptions generation{*options.sampling, checkpoint.stop_tokens(), options.max_tokens};
    if (prompt) print_piece(*prompt);
    continue_text(session, tokens, tokenizer ? &*tokenizer : nullptr, generation, speed);
    if (save) ple::SavedSession::save(session, *save);
    speed.print(open_seconds);
    print_counters(model.table_counters());
    return;
  }
  ple::Chat chat(model, checkpoint, options);
  if (resume) chat.resume(*resume);
  const double open_seconds = opening.seconds();
  if (chat_text) {
    answer(chat, *chat_text, speed);
  } else {
    fmt::print("An empty line ends the conversation.\n");
    for (std::string line; fmt::print("\n> "), std::fflush(stdout), std::getline(std::cin, line) && !line.empty();) {
      answer(chat, line, speed);
    }
  }
  if (save) chat.save(*save);
  speed.print(open_seconds);
  print_counters(model.table_counters());
}

}  // namespace

int main(int argc, char** argv) { return examples::run(usage.c_str(), argc, argv, run); }
