// SPDX-License-Identifier: Apache-2.0
// Fine-tunes a model on chats or texts. What it learns is an adapter: the model's file stays as it is.
#include <ple/models.h>
#include <ple/train/dataset.h>
#include <ple/train/language_trainer.h>
#include <ple/train/pack_texts.h>
#include <ple/train/trained_adapter.h>

#include <fmt/core.h>

#include "arguments.h"
#include "loss_curve.h"
#include "output.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

constexpr const char* usage =
    "usage: finetune MODEL DATA --out FOLDER [options]\n"
    "\n"
    "  MODEL             a Hugging Face folder or a GGUF file of a Gemma 4 or 3 model, of any number type\n"
    "  DATA              JSON lines: {\"messages\": [{\"role\": \"user\", \"content\": ...}, ...]}, of which the "
    "answers\n"
    "                    are learnt, or {\"text\": ...}; or a .txt file, which is cut into texts\n"
    "  --out FOLDER      gets the adapter (as PEFT saves them), checkpoint.safetensors and loss.svg\n"
    "  --resume          go on from the folder's checkpoint: the same bits as without a break\n"
    "  --held-out X      a share of the texts that is not learnt, to be judged by (default: 0.1), or a file of such\n"
    "  --epochs X        (default: 3)\n"
    "  --length N        most tokens of a sequence, in which short texts are packed (default: 512)\n"
    "  --batch N         sequences of a step (default: 4)\n"
    "  --rank N          of adapters; 0: none (default: 16)\n"
    "  --alpha X         what adapters add is multiplied by alpha / rank (default: the rank)\n"
    "  --ple             adapters for the PLE gates and projections, too\n"
    "  --rows            train the PLE table's rows of tokens that occur, too\n"
    "  --rate X          learning rate (default: 2e-4), which rises for a twentieth of the steps and falls as a "
    "cosine\n"
    "  --row-rate X      of rows (default: a hundredth of the RMS of the table's values)\n"
    "  --decay X         weight decay of adapters (default: 0)\n"
    "  --clip X          most norm of a step's gradient (default: 1); 0: any\n"
    "  --seed N          of the order of texts and of adapters (default: 1)\n"
    "  --save-every N    steps between checkpoints (default: 50)\n"
    "  --judge-every N   steps between losses of what is held out (default: a tenth of all)\n"
    "  --memory MIB      for activations, which are computed again beyond it (default: 256)\n"
    "  --threads N       (default: all)\n";

namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

std::vector<ple::TrainingSequence> sequences_of(const std::vector<ple::PackedTexts>& packs) {
  std::vector<ple::TrainingSequence> all;
  for (const ple::PackedTexts& pack : packs) all.push_back({pack.tokens, pack.learnt, pack.begins});
  return all;
}

/// "1 h 20 min", "3 min 5 s"
std::string duration_text(double seconds) {
  const auto s = static_cast<std::uint64_t>(seconds + 0.5);
  if (s >= 3600) return fmt::format("{} h {} min", s / 3600, s / 60 % 60);
  return s >= 60 ? fmt::format("{} min {} s", s / 60, s % 60) : fmt::format("{} s", s);
}

/// Losses so far, as notes of a checkpoint.
struct History {
  std::vector<examples::LossPoint> training, held_out;

  static std::string text(const std::vector<examples::LossPoint>& points) {
    std::string all;
    for (const auto& p : points) all += ple::number_text(p.at) + " " + ple::number_text(p.loss) + "\n";
    return all;
  }
  static std::vector<examples::LossPoint> points(const std::string& text) {
    std::vector<examples::LossPoint> all;
    std::istringstream lines(text);
    for (std::string at, loss; lines >> at >> loss;) {
      all.push_back({ple::parse_number<double>(at).value_or(0), ple::parse_number<double>(loss).value_or(0)});
    }
    return all;
  }
};

struct Options {
  std::string model, data, held_out;
  std::filesystem::path out;
  bool resume = false, ple = false;
  double epochs = 3;
  std::size_t batch = 4, save_every = 50, judge_every = 0;
  ple::TrainingOptions training;
};

Options read_options(examples::Arguments& arguments) {
  Options o;
  o.model = arguments.first("MODEL");
  o.data = arguments.first("DATA");
  const auto out = arguments.text("--out");
  if (!out) examples::refuse("--out FOLDER is missing");
  o.out = *out;
  o.resume = arguments.flag("--resume");
  o.held_out = arguments.text("--held-out").value_or("0.1");
  o.epochs = arguments.number<double>("--epochs", 3, 0.001, 1e6);
  o.batch = arguments.number<std::size_t>("--batch", 4, 1, 65536);
  o.save_every = arguments.number<std::size_t>("--save-every", 50, 1);
  o.judge_every = arguments.number<std::size_t>("--judge-every", 0, 1);
  ple::TrainingOptions& t = o.training;
  t.rank = arguments.number<std::size_t>("--rank", 16, 0, 4096);
  t.alpha = arguments.number<double>("--alpha", static_cast<double>(t.rank), 0);
  o.ple = arguments.flag("--ple");
  if (o.ple) {
    for (const ple::Parameter parameter :
         {ple::Parameter::ple_gate, ple::Parameter::ple_output, ple::Parameter::ple_context_projection}) {
      t.adapters.push_back(parameter);
    }
  }
  if (t.rank == 0) t.adapters.clear();
  t.rows = arguments.flag("--rows");
  if (t.adapters.empty() && !t.rows) examples::refuse("with --rank 0 and without --rows nothing is trained");
  t.rate = arguments.number<double>("--rate", 2e-4, 0);
  t.row_rate = arguments.number<double>("--row-rate", 0, 0);
  t.decay = arguments.number<double>("--decay", 0, 0);
  t.clip = arguments.number<double>("--clip", 1, 0);
  t.seed = arguments.number<std::uint64_t>("--seed", 1);
  t.gradient.max_tokens = arguments.number<std::size_t>("--length", 512, 2, ple::most_tokens_at_once);
  t.gradient.activation_budget = arguments.bytes("--memory").value_or(std::size_t{256} << 20);
  t.gradient.threads = arguments.threads();
  arguments.done();
  return o;
}

struct Texts {
  std::vector<ple::PackedTexts> training, held_out;
  std::size_t texts = 0, tokens = 0, learnt = 0;
  std::uint64_t checksum = 0;  ///< of what is learnt, and what is held out
};

Texts read_texts(const Options& o, const ple::Checkpoint& checkpoint) {
  const ple::Tokenizer tokenizer = ple::open_tokenizer(checkpoint);
  const auto format =
      ple::chat_format(tokenizer, checkpoint.chat_template(), !checkpoint.has(ple::Parameter::ple_table));
  const std::size_t length = o.training.gradient.max_tokens;
  const auto read = [&](const std::string& path) {
    ple::Dataset data = ple::read_dataset(path, tokenizer, format, {.max_length = length, .windows = true});
    fmt::print("{}: {} chats, {} texts", path, data.chats, data.plain);
    if (data.cut > 0)
      fmt::print("; {} tokens of {} that are longer than {} are cut off", data.cut_tokens, data.cut, length);
    if (data.unlearnt > 0) fmt::print("; {} left out, whose answers begin later", data.unlearnt);
    fmt::print("\n");
    return std::move(data.texts);
  };
  ple::SplitTexts texts{.training = read(o.data), .held_out = {}};
  const auto share = ple::parse_number<double>(o.held_out);
  if (share) {
    if (!(*share >= 0 && *share < 1)) examples::refuse("--held-out: ", o.held_out, " is not from 0 to less than 1");
    texts = ple::split_texts(std::move(texts.training), {.fraction = *share, .seed = o.training.seed});
  } else {
    texts.held_out = read(o.held_out);
  }
  if (texts.training.empty()) examples::refuse("all ", std::to_string(texts.held_out.size()), " texts are held out");
  Texts all;
  all.texts = texts.training.size();
  ple::Checksum sum;
  for (const auto* part : {&texts.training, &texts.held_out}) {
    for (const ple::TrainingText& text : *part) {
      sum.add(std::as_bytes(std::span(text.tokens)));
      sum.add(std::as_bytes(std::span(text.learnt)));
      if (part != &texts.training) continue;
      all.tokens += text.tokens.size();
      all.learnt += text.learnt_count();
    }
  }
  all.checksum = sum.value();
  all.training = ple::pack_texts(texts.training, length);
  all.held_out = ple::pack_texts(texts.held_out, length);
  return all;
}

class FineTuning {
 public:
  FineTuning(const Options& o, const ple::Checkpoint& checkpoint, Texts texts, std::size_t steps)
      : o_(o),
        texts_(std::move(texts)),
        steps_(steps),
        base_(ple::peft_base(o.model)),
        pool_(o.training.gradient.threads),
        trainer_(ple::load_trainer(checkpoint, o.training)),
        training_(sequences_of(texts_.training)),
        held_out_(sequences_of(texts_.held_out)) {
    run_ = fmt::format("epochs {}, batch {}, length {}, texts {:016x}", o.epochs, o.batch,
                       o.training.gradient.max_tokens, texts_.checksum);
  }

  void run() {
    std::filesystem::create_directories(o_.out);
    const std::filesystem::path file = o_.out / "checkpoint.safetensors";
    if (o_.resume) {
      resume(file);
    } else if (std::filesystem::exists(file)) {
      examples::refuse(file.string(), " is there: --resume goes on from it; to begin anew, remove it");
    }
    if (trainer_->steps() == 0) judge();
    const std::size_t judge_every = o_.judge_every > 0 ? o_.judge_every : std::max<std::size_t>(1, steps_ / 10);
    started_ = now();
    first_step_ = trainer_->steps();
    while (trainer_->steps() < steps_) {
      try {
        step();
      } catch (const ple::Error& error) {
        if (error.code() != ple::ErrorCode::not_finite) throw;
        save(file);
        throw;
      }
      const std::size_t made = trainer_->steps();
      if (made % judge_every == 0 || made == steps_) judge();
      if (made % o_.save_every == 0 || made == steps_) save(file);
    }
    report();
  }

 private:
  void resume(const std::filesystem::path& file) {
    std::map<std::string, std::string> notes = trainer_->load(file);
    if (notes["run"] != run_) {
      examples::refuse(file.string(), ": was saved by another run: ", notes["run"], "; this is: ", run_);
    }
    history_ = {History::points(notes["training"]), History::points(notes["held_out"])};
    fmt::print("goes on after step {}\n", trainer_->steps());
  }

  /// The next sequences, epoch by epoch, each in an order of its own.
  void step() {
    std::vector<ple::TrainingSequence> batch;
    const std::size_t count = training_.size();
    for (std::size_t i = trainer_->steps() * o_.batch; batch.size() < o_.batch; ++i) {
      if (i / count != epoch_ || order_.empty())
        order_ = ple::shuffled_order(count, o_.training.seed, epoch_ = i / count);
      batch.push_back(training_[order_[i % count]]);
    }
    const ple::TrainingStep made = trainer_->step(pool_, batch);
    history_.training.push_back({static_cast<double>(trainer_->steps()), made.loss});
    tokens_ += made.tokens;
    const double seconds = now() - started_;
    const auto done = static_cast<double>(trainer_->steps() - first_step_);
    fmt::print(stderr, "\rstep {} of {}: loss {:.3f}, gradient {:.2f}, {:.0f} tokens/s, {} left   ", trainer_->steps(),
               steps_, made.loss, made.gradient_norm, static_cast<double>(tokens_) / seconds,
               duration_text(seconds / done * static_cast<double>(steps_ - trainer_->steps())));
  }

  void judge() {
    if (held_out_.empty()) return;
    const double start = now(), loss = trainer_->evaluate(pool_, held_out_);
    history_.held_out.push_back({static_cast<double>(trainer_->steps()), loss});
    started_ += now() - start;  // a step's time is its own
    fmt::print(stderr, "\r{:78}\r", "");
    fmt::print("step {}: held-out loss {:.4f} nats a token\n", trainer_->steps(), loss);
    static_cast<void>(std::fflush(stdout));
  }

  void save(const std::filesystem::path& file) {
    trainer_->save(file, {{"run", run_},
                          {"training", History::text(history_.training)},
                          {"held_out", History::text(history_.held_out)}});
    ple::write_peft_adapter(o_.out, trainer_->trained(), base_);
    const std::string title = "Fine-tuning " + std::filesystem::path(o_.model).filename().string();
    const examples::LossCurve curve{
        .title = title,
        .subtitle = std::to_string(texts_.texts) + " texts, " + std::to_string(texts_.tokens) + " tokens",
        .training = history_.training,
        .held_out = history_.held_out};
    examples::Output((o_.out / "loss.svg").string(), {}).write(examples::loss_curve_page(curve));
  }

  void report() const {
    fmt::print(stderr, "\r{:78}\r", "");
    std::size_t numbers = 0, rows = trainer_->trained().rows.size();
    for (const auto& entry : trainer_->trained().adapters) {
      numbers += entry.second.a.values.size() + entry.second.b.values.size();
    }
    const double seconds = now() - started_;
    const ple::MemoryUse memory = ple::memory_use();
    if (trainer_->steps() > first_step_) {
      fmt::print("{} steps in {}, {:.1f} tokens/s | memory: {:.0f} MiB, {:.0f} MiB of it not backed by a file\n",
                 trainer_->steps() - first_step_, duration_text(seconds), static_cast<double>(tokens_) / seconds,
                 static_cast<double>(memory.resident) / 1048576, static_cast<double>(memory.anonymous) / 1048576);
    }
    fmt::print("{}: an adapter of {} numbers", o_.out.string(), numbers);
    if (rows > 0) fmt::print(" and {} rows of the PLE table", rows);
    fmt::print("\n");
    if (history_.held_out.size() > 1) {
      fmt::print("held-out loss before: {:.4f}, after: {:.4f} nats a token\n", history_.held_out.front().loss,
                 history_.held_out.back().loss);
    }
    fmt::print("to try it: generate {} --adapter {}\n", o_.model, o_.out.string());
  }

  Options o_;
  Texts texts_;
  std::size_t steps_;
  ple::PeftBase base_;
  ple::ThreadPool pool_;
  std::unique_ptr<ple::LanguageTrainer> trainer_;
  std::vector<ple::TrainingSequence> training_, held_out_;
  History history_;
  std::string run_;
  std::vector<std::size_t> order_;  // of the sequences, in this epoch
  std::size_t epoch_ = 0, first_step_ = 0;
  std::uint64_t tokens_ = 0;
  double started_ = 0;
};

void run(examples::Arguments& arguments) {
  Options o = read_options(arguments);
  const ple::Checkpoint checkpoint = ple::Checkpoint::open(o.model);
  if ((o.training.rows || o.ple) && !checkpoint.has(ple::Parameter::ple_table)) {
    examples::refuse(o.ple ? "--ple: " : "--rows: ", o.model, " has no PLE table");
  }
  Texts texts = read_texts(o, checkpoint);
  const double all = static_cast<double>(texts.training.size()) * o.epochs / static_cast<double>(o.batch);
  const auto steps = static_cast<std::size_t>(std::max(1.0, std::ceil(all)));
  o.training.schedule = {.steps = steps, .warm_up = steps / 20};
  fmt::print("learns from {} texts of {} tokens, of which {} count, in {} sequences: {} steps\n", texts.texts,
             texts.tokens, texts.learnt, texts.training.size(), steps);
  o.training.gradient.threads = ple::ThreadPool(o.training.gradient.threads).concurrency();
  FineTuning(o, checkpoint, std::move(texts), steps).run();
}

}  // namespace

int main(int argc, char** argv) { return examples::run(usage, argc, argv, run); }
