// SPDX-License-Identifier: Apache-2.0
// Many sessions of one model from many threads for a long time: prompts, cancels, restarts, answers, sessions saved and
// resumed, in random order. Every result has to have the bits that one session alone gives, and memory must not grow.
//
//   load MODEL MINUTES [SEED]
#include <ple/ple.h>

#include <fmt/core.h>
#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "../allocations.h"
#include "../temporary.h"

namespace {

using ple::Token;
using Model = ple::Gemma4<ple::Any, ple::Simd>;
using Random = std::mt19937_64;

constexpr std::size_t sessions = 64, threads = 8, context = 256, row_budget = 16 << 10;

std::size_t number(Random& random, std::size_t least, std::size_t most) {
  return std::uniform_int_distribution<std::size_t>(least, most)(random);
}

std::vector<Token> prompt(Random& random, std::size_t most) {
  std::vector<Token> tokens(number(random, 1, most));
  for (Token& token : tokens) token = static_cast<Token>(number(random, 0, 1023));
  return tokens;
}

/// What the threads share: sessions that wait for their turn, and what has been done.
struct Load {
  const Model& model;
  ple::InlineExecutor alone;
  ple::ThreadPool pool{2};
  ple::testing::TemporaryFolder folder;
  std::mutex mutex;
  std::deque<std::unique_ptr<ple::Session>> waiting;
  std::atomic<bool> stop{false};
  std::atomic<std::size_t> steps{0}, tokens{0}, cancels{0}, resumed{0}, checks{0}, wrong{0};

  explicit Load(const Model& m) : model(m) {}

  std::unique_ptr<ple::Session> make_session(Random& random) {
    ple::Executor* executor = number(random, 0, 1) ? static_cast<ple::Executor*>(&alone) : &pool;
    return std::make_unique<ple::Session>(
        model, ple::SessionOptions{.context = context, .chunk = number(random, 1, 40), .executor = executor});
  }
};

/// Reads tokens, and with `cancel` stops in the middle and goes on, or not.
void read(Load& load, Random& random, ple::Session& session, std::span<const Token> tokens, bool cancel) {
  const std::size_t begin = session.position(), stop_at = cancel ? number(random, 1, tokens.size()) : tokens.size();
  try {
    session.read(tokens, [&](std::size_t done, std::size_t) { return done < stop_at; });
  } catch (const ple::Error& error) {
    if (error.code() != ple::ErrorCode::cancelled) throw;
    ++load.cancels;
    if (number(random, 0, 1)) return session.reset();
    session.read(tokens.subspan(session.position() - begin));
  }
  load.tokens += tokens.size();
}

/// Compares with a session of its own that reads the same text, cut in another way.
void check(Load& load, Random& random, const ple::Session& session) {
  ple::Session single(load.model, {.context = context, .chunk = number(random, 1, 64), .executor = &load.alone});
  single.read(session.tokens());
  ++load.checks;
  if (std::memcmp(single.logits().data(), session.logits().data(), session.logits().size_bytes()) != 0) ++load.wrong;
}

void step(Load& load, Random& random, std::unique_ptr<ple::Session>& session, const std::filesystem::path& file) {
  ++load.steps;
  if (number(random, 0, 15) == 0) session = load.make_session(random);
  if (number(random, 0, 3) == 0 || session->position() + 60 > context) session->reset();
  read(load, random, *session, prompt(random, 40), number(random, 0, 3) == 0);
  if (session->position() == 0) return;
  ple::Generation answer(*session, {.sampling = {.temperature = 1, .seed = number(random, 0, 1u << 31)},
                                    .max_tokens = number(random, 0, 20)});
  while (answer.next()) ++load.tokens;
  answer.flush();
  if (number(random, 0, 7) == 0) {
    ple::SavedSession::save(*session, file);
    session = load.make_session(random);
    ple::SavedSession::load(*session, file);
    ++load.resumed;
  }
  if (number(random, 0, 3) == 0) check(load, random, *session);
}

void work(Load& load, std::size_t seed) {
  Random random(seed);
  const std::filesystem::path file = load.folder / ("session" + std::to_string(seed));
  while (!load.stop) {
    std::unique_ptr<ple::Session> session;
    {
      const std::lock_guard lock(load.mutex);
      session = std::move(load.waiting.front());
      load.waiting.pop_front();
    }
    step(load, random, session, file);
    const std::lock_guard lock(load.mutex);
    load.waiting.push_back(std::move(session));
  }
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

int run(const std::string& path, double minutes, std::size_t seed) {
#if defined(__GLIBC__)
  // What was freed goes back to the system at once, or is found again by every thread, so that a leak is seen.
  ::mallopt(M_MMAP_THRESHOLD, 64 << 10);
  ::mallopt(M_ARENA_MAX, 1);
#endif
  const auto model = Model::load(ple::Checkpoint::open(path), {.table = ple::Streamed{.budget = row_budget}});
  Load load(model);
  std::vector<double> early, late;      // MiB of anonymous memory in the second quarter of the time and in the last
  early.reserve(10), late.reserve(10);  // before pieces of memory are counted
  const std::size_t pieces_before = ple::testing::live_allocations();
  Random random(seed);
  // All begin with a full context: from then on memory has no reason to grow.
  for (std::size_t i = 0; i < sessions; ++i) {
    load.waiting.push_back(load.make_session(random));
    load.waiting.back()->read(std::vector<Token>(context, static_cast<Token>(i)));
  }
  std::vector<std::jthread> workers;
  for (std::size_t t = 0; t < threads; ++t) {
    workers.emplace_back([&load, seed, t] {
      try {
        work(load, seed * threads + t);
      } catch (const std::exception& error) {
        fmt::print(stderr, "error: {}\n", error.what());
        std::_Exit(1);
      }
    });
  }
  const auto start = std::chrono::steady_clock::now();
  const double seconds = minutes * 60;
  for (int sample = 1; sample <= 40; ++sample) {
    std::this_thread::sleep_until(start + std::chrono::duration<double>(seconds * sample / 40));
    const ple::MemoryUse use = ple::memory_use();
    const double anonymous = static_cast<double>(use.anonymous) / 1048576;
    if (sample > 10 && sample <= 20) early.push_back(anonymous);
    if (sample > 30) late.push_back(anonymous);
    fmt::print(
        "{:6.0f} s | {} steps, {} tokens, {} cancels, {} resumed | {} checked, {} wrong | {:.1f} MiB resident, {:.1f} "
        "anonymous\n",
        seconds * sample / 40, load.steps, load.tokens, load.cancels, load.resumed, load.checks, load.wrong,
        static_cast<double>(use.resident) / 1048576, anonymous);
    std::fflush(stdout);
  }
  load.stop = true;
  workers.clear();
  load.waiting.clear();
  const std::size_t pieces_left = ple::testing::live_allocations() - pieces_before;
  const ple::TableCounters counters = model.table.counters();
  fmt::print("rows: {} asked for, {} hits, {} KiB read\n", counters.rows_asked, counters.hits,
             counters.bytes_read >> 10);
  // What leaks adds up and is in every sample; a single one may find all threads with a session more.
  const double before = median(early), after = median(late);
  const bool flat = after <= 1.05 * before + 1.9;  // the rest is what the allocator keeps
  // The deque keeps what it grew to.
  const bool good = load.wrong == 0 && load.checks > 0 && flat && pieces_left <= 2;
  fmt::print(
      "{}: {} of {} results are wrong; anonymous memory {:.1f} MiB early, {:.1f} MiB late; {} pieces of memory left\n",
      good ? "good" : "BAD", load.wrong, load.checks, before, after, pieces_left);
  return good ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3 || std::atof(argv[2]) <= 0) {
    fmt::print(stderr, "usage: load MODEL MINUTES [SEED]\n");
    return 2;
  }
  return run(argv[1], std::atof(argv[2]), argc > 3 ? std::strtoul(argv[3], nullptr, 10) : 1);
}
