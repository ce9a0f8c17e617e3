// SPDX-License-Identifier: Apache-2.0
// Many positioned reads of one file in flight at once.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/system.h"

namespace ple {
inline namespace PLE_ABI {

/// One read: into.size() bytes from `offset` on. `tag` is the caller's, to know it again.
struct ReadRequest {
  std::uint64_t offset = 0;
  std::span<std::byte> into = {};
  std::uint64_t tag = 0;
};

struct ReadDone {
  std::uint64_t tag = 0;
  ReadResult result = {};
};

/// The memory of a read must stay until the read is done. Only one thread at a time may submit, and only one may wait;
/// the two may be different ones at the same time. Neither allocates memory.
class ReadQueue {
 public:
  virtual ~ReadQueue() = default;
  virtual const char* name() const = 0;
  /// Most reads in flight; no more may be submitted.
  virtual std::size_t depth() const = 0;
  virtual void submit(std::span<const ReadRequest> requests) = 0;
  /// Waits for at least one read and returns how many of `done`, at least one long, were filled. There must be a read
  /// in flight.
  virtual std::size_t wait(std::span<ReadDone> done) = 0;
};

/// For systems without io_uring: a few threads that read and wait.
class ThreadReadQueue final : public ReadQueue {
 public:
  explicit ThreadReadQueue(std::shared_ptr<const File> file, std::size_t depth = 256, std::size_t threads = 8)
      : file_(std::move(file)), depth_(depth) {
    waiting_.reserve(depth);
    done_.reserve(depth);
    try {
      for (std::size_t i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
    } catch (const std::system_error& error) {
      const std::size_t started = threads_.size();
      stop();
      fail(ErrorCode::system, file_->name(), ": ", started, " threads to read with run, of ", threads, ": ",
           error.what());
    } catch (...) {
      stop();
      throw;
    }
  }
  ThreadReadQueue(const ThreadReadQueue&) = delete;
  ThreadReadQueue& operator=(const ThreadReadQueue&) = delete;
  ~ThreadReadQueue() override { stop(); }

  const char* name() const override { return "threads"; }
  std::size_t depth() const override { return depth_; }

  void submit(std::span<const ReadRequest> requests) override {
    const std::lock_guard lock(mutex_);
    // Threads take the last one first.
    waiting_.insert(waiting_.begin(), requests.rbegin(), requests.rend());
    if (requests.size() == 1) {
      work_.notify_one();
    } else {
      work_.notify_all();
    }
  }

  std::size_t wait(std::span<ReadDone> done) override {
    std::unique_lock lock(mutex_);
    finished_.wait(lock, [&] { return !done_.empty(); });
    const std::size_t count = (std::min)(done.size(), done_.size());
    std::copy(done_.end() - static_cast<std::ptrdiff_t>(count), done_.end(), done.begin());
    done_.resize(done_.size() - count);
    return count;
  }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      work_.wait(lock, [&] { return stopping_ || !waiting_.empty(); });
      if (waiting_.empty()) return;  // what was asked for is still read: its memory is in use
      const ReadRequest request = waiting_.back();
      waiting_.pop_back();
      lock.unlock();
      const ReadResult result = file_->read(request.offset, request.into);
      lock.lock();
      done_.push_back({request.tag, result});
      finished_.notify_one();
    }
  }

  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    work_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  std::shared_ptr<const File> file_;
  std::size_t depth_;
  std::mutex mutex_;
  std::condition_variable work_, finished_;
  std::vector<ReadRequest> waiting_;
  std::vector<ReadDone> done_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace PLE_ABI
}  // namespace ple
