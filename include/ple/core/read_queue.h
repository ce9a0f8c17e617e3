// SPDX-License-Identifier: Apache-2.0
// Many positioned reads of one file in flight at once.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/file.h"
#include "ple/core/fork_guard.h"

namespace ple::inline PLE_ABI {

/// A read of into.size() bytes from `offset`. The caller recognises it by `tag`.
struct ReadRequest {
  std::uint64_t offset = 0;
  std::span<std::byte> into = {};
  std::uint64_t tag = 0;
};

struct ReadDone {
  std::uint64_t tag = 0;
  ReadResult result = {};
};

/// A read's memory must stay valid until the read is done. One thread may submit while another waits; neither call
/// allocates. After fork(), the child can only call again() and destroy: submit and wait fail with ErrorCode::system.
class ReadQueue {
 public:
  virtual ~ReadQueue() = default;
  virtual const char* name() const = 0;
  virtual std::size_t depth() const = 0;  ///< the most reads in flight at once
  virtual void submit(std::span<const ReadRequest> requests) = 0;
  /// Waits for at least one read and returns how many elements of `done` (at least one) it filled. A read must be in
  /// flight. If the program closed the file's or the queue's descriptor, each read has an error.
  virtual std::size_t wait(std::span<ReadDone> done) = 0;

  /// An empty queue of the same kind for the same file. Errors: ErrorCode::system, not_supported.
  virtual std::unique_ptr<ReadQueue> again() const {
    fail(ErrorCode::not_supported, "read queue (", name(), "): cannot be created again after fork()");
  }

 protected:
  static void require_same_process(const ForkGuard& guard) {
    if (!guard.same_process()) fail(ErrorCode::system, "read queue: it was created before fork() made this process");
  }
};

/// For systems without io_uring: a few threads with blocking reads.
class ThreadReadQueue final : public ReadQueue {
 public:
  explicit ThreadReadQueue(std::shared_ptr<const InputFile> file, std::size_t depth = 256, std::size_t threads = 8)
      : file_(std::move(file)), depth_(depth), readers_(std::make_unique<Readers>(*file_, depth, threads)) {}
  ThreadReadQueue(const ThreadReadQueue&) = delete;
  ThreadReadQueue& operator=(const ThreadReadQueue&) = delete;
  ~ThreadReadQueue() override {
    // In a child process the threads cannot be joined and locks may be held: leak them.
    if (!guard_.same_process()) static_cast<void>(readers_.release());
  }

  const char* name() const override { return "threads"; }
  std::size_t depth() const override { return depth_; }

  void submit(std::span<const ReadRequest> requests) override {
    require_same_process(guard_);
    readers_->submit(requests, file_->check_descriptor());
  }

  std::size_t wait(std::span<ReadDone> done) override {
    require_same_process(guard_);
    return readers_->wait(done);
  }

  std::unique_ptr<ReadQueue> again() const override {
    return std::make_unique<ThreadReadQueue>(file_, depth_, readers_->count());
  }

 private:
  /// The threads and what they share with the caller.
  class Readers {
   public:
    Readers(const InputFile& file, std::size_t depth, std::size_t threads) : file_(file), count_(threads) {
      waiting_.reserve(depth);
      done_.reserve(depth);
      try {
        for (std::size_t i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
      } catch (const std::system_error& error) {
        const std::size_t started = threads_.size();
        stop();
        fail(ErrorCode::system, file_.name(), ": only ", started, " of ", threads,
             " reader threads started: ", error.what());
      } catch (...) {
        stop();
        throw;
      }
    }
    Readers(const Readers&) = delete;
    Readers& operator=(const Readers&) = delete;
    ~Readers() { stop(); }

    std::size_t count() const { return count_; }

    void submit(std::span<const ReadRequest> requests, int error) {
      const std::lock_guard lock(mutex_);
      if (error != 0) {
        for (const ReadRequest& request : requests) done_.push_back({request.tag, {0, error}});
        finished_.notify_one();
        return;
      }
      waiting_.insert(waiting_.begin(), requests.rbegin(), requests.rend());  // reversed, as threads take the last
      if (requests.size() == 1) {
        work_.notify_one();
      } else {
        work_.notify_all();
      }
    }

    std::size_t wait(std::span<ReadDone> done) {
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
        if (waiting_.empty()) return;  // only after the last read, whose memory is in use
        const ReadRequest request = waiting_.back();
        waiting_.pop_back();
        lock.unlock();
        const ReadResult result = file_.read(request.offset, request.into);
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

    const InputFile& file_;
    std::size_t count_;
    std::mutex mutex_;
    std::condition_variable work_, finished_;
    std::vector<ReadRequest> waiting_;
    std::vector<ReadDone> done_;
    bool stopping_ = false;
    std::vector<std::thread> threads_;
  };

  std::shared_ptr<const InputFile> file_;
  std::size_t depth_;
  ForkGuard guard_;
  std::unique_ptr<Readers> readers_;
};

}  // namespace ple::inline PLE_ABI
