// SPDX-License-Identifier: Apache-2.0
// Reads through Linux's io_uring: many in flight without a thread. Source: io_uring(7), io_uring_enter(2).
#pragma once

#include "ple/core/config.h"
#include "ple/core/read_queue.h"

#if defined(__linux__) && __has_include(<linux/io_uring.h>)
#include <linux/io_uring.h>
#include <sys/syscall.h>

#include <atomic>

namespace ple {
inline namespace PLE_ABI {

class IoUringReadQueue final : public ReadQueue {
 public:
  /// Nothing where the kernel has no io_uring, is older than 5.6, or does not let this process use it.
  static std::unique_ptr<ReadQueue> make(std::shared_ptr<const File> file, unsigned depth = 256) {
    std::unique_ptr<IoUringReadQueue> queue(new IoUringReadQueue(std::move(file)));
    return queue->start(depth) ? std::move(queue) : nullptr;
  }
  IoUringReadQueue(const IoUringReadQueue&) = delete;
  IoUringReadQueue& operator=(const IoUringReadQueue&) = delete;
  ~IoUringReadQueue() override {
    if (entries_.address != nullptr) ::munmap(entries_.address, entries_.size);
    if (rings_.address != nullptr) ::munmap(rings_.address, rings_.size);
    if (ring_ >= 0) ::close(ring_);
  }

  const char* name() const override { return "io_uring"; }
  std::size_t depth() const override { return depth_; }

  void submit(std::span<const ReadRequest> requests) override {
    const unsigned tail = submission_tail_->load(std::memory_order_relaxed);
    for (unsigned i = 0; i < requests.size(); ++i) {
      const ReadRequest& request = requests[i];
      const unsigned slot = (tail + i) & submission_mask_;
      io_uring_sqe& entry = static_cast<io_uring_sqe*>(entries_.address)[slot];
      entry = {};
      entry.opcode = IORING_OP_READ;
      entry.fd = file_->descriptor();
      entry.off = request.offset;
      entry.addr = reinterpret_cast<std::uint64_t>(request.into.data());
      entry.len = static_cast<std::uint32_t>(request.into.size());
      entry.user_data = request.tag;
      submission_array_[slot] = slot;
    }
    submission_tail_->store(tail + static_cast<unsigned>(requests.size()), std::memory_order_release);
    // What the kernel does not take now (it is short of memory, say) it is offered again by whoever waits.
    unsubmitted_.fetch_add(static_cast<unsigned>(requests.size()), std::memory_order_relaxed);
    enter(0);
  }

  std::size_t wait(std::span<ReadDone> done) override {
    while (true) {
      const unsigned head = completion_head_->load(std::memory_order_relaxed);
      const unsigned ready = completion_tail_->load(std::memory_order_acquire) - head;
      if (ready > 0) {
        const auto count = static_cast<unsigned>(std::min<std::size_t>(ready, done.size()));
        for (unsigned i = 0; i < count; ++i) {
          const io_uring_cqe& entry = completions_[(head + i) & completion_mask_];
          const int result = entry.res;
          done[i] = {entry.user_data,
                     result < 0 ? ReadResult{0, -result} : ReadResult{static_cast<std::size_t>(result), 0}};
        }
        completion_head_->store(head + count, std::memory_order_release);
        return count;
      }
      enter(1);
    }
  }

 private:
  struct Mapping {
    void* address = nullptr;
    std::size_t size = 0;
  };

  explicit IoUringReadQueue(std::shared_ptr<const File> file) : file_(std::move(file)) {}

  void enter(unsigned wait_for) {
    const unsigned count = unsubmitted_.load(std::memory_order_relaxed);
    const long taken =
        ::syscall(__NR_io_uring_enter, ring_, count, wait_for, wait_for > 0 ? IORING_ENTER_GETEVENTS : 0u, nullptr, 0);
    if (taken > 0) unsubmitted_.fetch_sub(static_cast<unsigned>(taken), std::memory_order_relaxed);
  }

  bool start(unsigned depth) {
    io_uring_params parameters = {};
    ring_ = static_cast<int>(::syscall(__NR_io_uring_setup, depth, &parameters));
    if (ring_ < 0) return false;
    if ((parameters.features & IORING_FEAT_SINGLE_MMAP) == 0 || !knows_read()) return false;
    depth_ = parameters.sq_entries;
    const std::size_t submissions = parameters.sq_off.array + parameters.sq_entries * sizeof(unsigned);
    const std::size_t completions = parameters.cq_off.cqes + parameters.cq_entries * sizeof(io_uring_cqe);
    rings_ = map(std::max(submissions, completions), IORING_OFF_SQ_RING);
    entries_ = map(parameters.sq_entries * sizeof(io_uring_sqe), IORING_OFF_SQES);
    if (rings_.address == nullptr || entries_.address == nullptr) return false;
    auto* base = static_cast<std::byte*>(rings_.address);
    const auto at = [&](unsigned offset) { return reinterpret_cast<unsigned*>(base + offset); };
    static_assert(sizeof(std::atomic<unsigned>) == sizeof(unsigned) && std::atomic<unsigned>::is_always_lock_free);
    submission_tail_ = reinterpret_cast<std::atomic<unsigned>*>(at(parameters.sq_off.tail));
    submission_mask_ = *at(parameters.sq_off.ring_mask);
    submission_array_ = at(parameters.sq_off.array);
    completion_head_ = reinterpret_cast<std::atomic<unsigned>*>(at(parameters.cq_off.head));
    completion_tail_ = reinterpret_cast<std::atomic<unsigned>*>(at(parameters.cq_off.tail));
    completion_mask_ = *at(parameters.cq_off.ring_mask);
    completions_ = reinterpret_cast<io_uring_cqe*>(base + parameters.cq_off.cqes);
    return true;
  }

  /// IORING_OP_READ came with kernel 5.6, and with it the question what a kernel knows.
  bool knows_read() const {
    constexpr unsigned count = IORING_OP_READ + 1;
    alignas(io_uring_probe) std::byte answer[sizeof(io_uring_probe) + count * sizeof(io_uring_probe_op)] = {};
    if (::syscall(__NR_io_uring_register, ring_, IORING_REGISTER_PROBE, answer, count) != 0) return false;
    const auto* probe = reinterpret_cast<const io_uring_probe*>(answer);
    return probe->last_op >= IORING_OP_READ && (probe->ops[IORING_OP_READ].flags & IO_URING_OP_SUPPORTED) != 0;
  }

  Mapping map(std::size_t size, std::uint64_t offset) const {
    void* address =
        ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring_, static_cast<off_t>(offset));
    return address == MAP_FAILED ? Mapping{} : Mapping{address, size};
  }

  std::shared_ptr<const File> file_;
  int ring_ = -1;
  std::size_t depth_ = 0;
  Mapping rings_, entries_;
  std::atomic<unsigned>*submission_tail_ = nullptr, *completion_head_ = nullptr, *completion_tail_ = nullptr;
  unsigned *submission_array_ = nullptr, submission_mask_ = 0, completion_mask_ = 0;
  io_uring_cqe* completions_ = nullptr;
  std::atomic<unsigned> unsubmitted_{0};
};

}  // namespace PLE_ABI
}  // namespace ple

#endif

namespace ple {
inline namespace PLE_ABI {

/// Who reads the rows of a streamed table.
enum class ReadEngine : std::uint8_t {
  best,      ///< io_uring where the system lets us, else threads
  io_uring,  ///< an error where there is none
  threads,
};

/// Errors: ErrorCode::not_supported for io_uring where there is none.
inline std::unique_ptr<ReadQueue> make_read_queue(const std::shared_ptr<const File>& file, ReadEngine engine) {
#if defined(__linux__) && __has_include(<linux/io_uring.h>)
  if (engine != ReadEngine::threads) {
    if (auto queue = IoUringReadQueue::make(file)) return queue;
  }
#endif
  if (engine == ReadEngine::io_uring) {
    fail(ErrorCode::not_supported, file->name(), ": this system does not let us use io_uring");
  }
  return std::make_unique<ThreadReadQueue>(file);
}

}  // namespace PLE_ABI
}  // namespace ple
