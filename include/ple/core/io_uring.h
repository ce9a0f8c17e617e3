// SPDX-License-Identifier: Apache-2.0
// Reads through Linux's io_uring: many in flight without a thread. Source: io_uring(7), io_uring_enter(2).
#pragma once

#include "ple/core/config.h"
#include "ple/core/read_queue.h"

#if defined(__linux__) && __has_include(<linux/io_uring.h>)
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <mutex>
#include <thread>

namespace ple::inline PLE_ABI {

class IoUringReadQueue final : public ReadQueue {
 public:
  /// Null if the kernel has no io_uring, is older than 5.6, or does not let this process use it.
  static std::unique_ptr<ReadQueue> make(std::shared_ptr<const InputFile> file, unsigned depth = 256) {
    std::unique_ptr<IoUringReadQueue> queue(new IoUringReadQueue(std::move(file)));
    return queue->start(depth) ? std::move(queue) : nullptr;
  }
  IoUringReadQueue(const IoUringReadQueue&) = delete;
  IoUringReadQueue& operator=(const IoUringReadQueue&) = delete;
  ~IoUringReadQueue() override {
    // After fork() these are the child's own references: the parent keeps its ring.
    if (entries_.address != nullptr) ::munmap(entries_.address, entries_.size);
    if (rings_.address != nullptr) ::munmap(rings_.address, rings_.size);
    os::FileStatus status;
    const bool ours = ring_ >= 0 && os::get_status(ring_, status) == 0 && status.identity == ring_identity_;
    if (ours) os::close(ring_);  // else the program closed it, and it belongs to someone else
  }

  const char* name() const override { return "io_uring"; }
  std::size_t depth() const override { return depth_; }

  void submit(std::span<const ReadRequest> requests) override {
    require_same_process(guard_);
    const int descriptor = file_->check_descriptor() == 0 ? file_->descriptor() : -1;  // -1: the reads fail
    const std::lock_guard lock(submitting_);
    const unsigned tail = submission_tail_->load(std::memory_order_relaxed);
    for (unsigned i = 0; i < requests.size(); ++i) {
      const ReadRequest& request = requests[i];
      const unsigned slot = (tail + i) & submission_mask_;
      io_uring_sqe& entry = entry_at(slot);
      entry = {};
      entry.opcode = IORING_OP_READ;
      entry.fd = descriptor;
      entry.off = request.offset;
      entry.addr = reinterpret_cast<std::uint64_t>(request.into.data());
      entry.len = static_cast<std::uint32_t>(request.into.size());
      entry.user_data = request.tag;
      submission_array_[slot] = slot;
    }
    submission_tail_->store(tail + static_cast<unsigned>(requests.size()), std::memory_order_release);
    enter(0);  // entries that the kernel does not take now (it lacks memory, say) are offered again by wait()
  }

  std::size_t wait(std::span<ReadDone> done) override {
    require_same_process(guard_);
    for (int refusals = 0;;) {
      if (const std::size_t count = take_done(done)) return count;
      const int error = enter(1);
      if (error == 0 || error == EINTR || error == ETIME) continue;
      const bool may_pass = (error == EAGAIN || error == EBUSY) && ++refusals < most_refusals;
      if (!may_pass && unsubmitted() > 0) return give_back(done, error);
      // Reads that the kernel took will end, even if the program closed the ring's descriptor: it stays mapped.
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  std::unique_ptr<ReadQueue> again() const override {
    if (auto queue = make(file_, static_cast<unsigned>(depth_))) return queue;
    fail(ErrorCode::not_supported, file_->name(), ": the system allows no new io_uring after fork()");
  }

 private:
  struct Mapping {
    void* address = nullptr;
    std::size_t size = 0;
  };

  explicit IoUringReadQueue(std::shared_ptr<const InputFile> file) : file_(std::move(file)) {}

  static constexpr int most_refusals = 1000;  // 1 ms apart

  io_uring_sqe& entry_at(unsigned slot) const { return static_cast<io_uring_sqe*>(entries_.address)[slot]; }

  /// Reads that the kernel has not taken yet.
  unsigned unsubmitted() const {
    return submission_tail_->load(std::memory_order_relaxed) - submission_head_->load(std::memory_order_acquire);
  }

  /// Offers the kernel what it has not taken, and waits for `wait_for` reads (at most 100 ms, if the kernel supports
  /// that). Returns 0, the system's error number or another_file.
  int enter(unsigned wait_for) {
    const unsigned head = submission_head_->load(std::memory_order_acquire);
    const unsigned count = submission_tail_->load(std::memory_order_relaxed) - head;
    unsigned flags = wait_for > 0 ? IORING_ENTER_GETEVENTS : 0u;
    const void* argument = nullptr;
    std::size_t size = 0;
#if defined(IORING_ENTER_EXT_ARG)
    // The descriptor may have been closed and reused for someone else's ring, in which our reads never complete.
    const std::int64_t limit[] = {0, 100'000'000};  // seconds, nanoseconds
    io_uring_getevents_arg limited = {};
    limited.ts = reinterpret_cast<std::uint64_t>(&limit[0]);
    if (wait_for > 0 && has_time_limit_) {
      flags |= IORING_ENTER_EXT_ARG;
      argument = &limited;
      size = sizeof limited;
    }
#endif
    const long taken = ::syscall(__NR_io_uring_enter, ring_, count, wait_for, flags, argument, size);
    if (taken < 0) return errno == EOPNOTSUPP || errno == ENXIO ? another_file : errno;
    // On our own ring the kernel takes at least one entry or returns an error.
    return count > 0 && submission_head_->load(std::memory_order_acquire) == head ? another_file : 0;
  }

  /// Collects completed reads without waiting.
  std::size_t take_done(std::span<ReadDone> done) {
    const unsigned head = completion_head_->load(std::memory_order_relaxed);
    const unsigned ready = completion_tail_->load(std::memory_order_acquire) - head;
    const auto count = static_cast<unsigned>((std::min)(std::size_t{ready}, done.size()));
    for (unsigned i = 0; i < count; ++i) {
      const io_uring_cqe& entry = completions_[(head + i) & completion_mask_];
      const int result = entry.res;
      done[i] = {entry.user_data,
                 result < 0 ? ReadResult{0, why_failed(-result)} : ReadResult{static_cast<std::size_t>(result), 0}};
    }
    if (count > 0) completion_head_->store(head + count, std::memory_order_release);
    return count;
  }

  int why_failed(int error) const {
    const int wrong = error == EBADF ? file_->check_descriptor() : 0;
    return wrong != 0 ? wrong : error;
  }

  /// Reports reads that the kernel refuses as failed.
  std::size_t give_back(std::span<ReadDone> done, int error) {
    const std::lock_guard lock(submitting_);
    const unsigned tail = submission_tail_->load(std::memory_order_relaxed);
    const auto count = static_cast<unsigned>((std::min)(std::size_t{unsubmitted()}, done.size()));
    for (unsigned i = 0; i < count; ++i) done[i] = {entry_at((tail - 1 - i) & submission_mask_).user_data, {0, error}};
    submission_tail_->store(tail - count, std::memory_order_release);
    return count;
  }

  bool start(unsigned depth) {
    io_uring_params parameters = {};
    ring_ = static_cast<int>(::syscall(__NR_io_uring_setup, depth, &parameters));
    if (ring_ < 0) return false;
    os::FileStatus status;
    if (os::get_status(ring_, status) != 0) return false;
    ring_identity_ = status.identity;
#if defined(IORING_ENTER_EXT_ARG)
    has_time_limit_ = (parameters.features & IORING_FEAT_EXT_ARG) != 0;
#endif
    if ((parameters.features & IORING_FEAT_SINGLE_MMAP) == 0 || !knows_read()) return false;
    depth_ = parameters.sq_entries;
    const std::size_t submissions = parameters.sq_off.array + parameters.sq_entries * sizeof(unsigned);
    const std::size_t completions = parameters.cq_off.cqes + parameters.cq_entries * sizeof(io_uring_cqe);
    rings_ = map((std::max)(submissions, completions), IORING_OFF_SQ_RING);
    entries_ = map(parameters.sq_entries * sizeof(io_uring_sqe), IORING_OFF_SQES);
    if (rings_.address == nullptr || entries_.address == nullptr) return false;
    auto* base = static_cast<std::byte*>(rings_.address);
    const auto at = [&](unsigned offset) { return reinterpret_cast<unsigned*>(base + offset); };
    static_assert(sizeof(std::atomic<unsigned>) == sizeof(unsigned) && std::atomic<unsigned>::is_always_lock_free);
    submission_head_ = reinterpret_cast<std::atomic<unsigned>*>(at(parameters.sq_off.head));
    submission_tail_ = reinterpret_cast<std::atomic<unsigned>*>(at(parameters.sq_off.tail));
    submission_mask_ = *at(parameters.sq_off.ring_mask);
    submission_array_ = at(parameters.sq_off.array);
    completion_head_ = reinterpret_cast<std::atomic<unsigned>*>(at(parameters.cq_off.head));
    completion_tail_ = reinterpret_cast<std::atomic<unsigned>*>(at(parameters.cq_off.tail));
    completion_mask_ = *at(parameters.cq_off.ring_mask);
    completions_ = reinterpret_cast<io_uring_cqe*>(base + parameters.cq_off.cqes);
    return true;
  }

  /// IORING_OP_READ came with kernel 5.6, and so did this probe.
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

  std::shared_ptr<const InputFile> file_;
  int ring_ = -1;
  FileIdentity ring_identity_;
  std::size_t depth_ = 0;
  Mapping rings_, entries_;
  std::atomic<unsigned>*submission_head_ = nullptr, *submission_tail_ = nullptr, *completion_head_ = nullptr,
  *completion_tail_ = nullptr;
  unsigned *submission_array_ = nullptr, submission_mask_ = 0, completion_mask_ = 0;
  io_uring_cqe* completions_ = nullptr;
  bool has_time_limit_ = false;
  std::mutex submitting_;
  ForkGuard guard_;
};

}  // namespace ple::inline PLE_ABI

#endif

namespace ple::inline PLE_ABI {

/// What reads the rows of a streamed table.
enum class ReadEngine : std::uint8_t {
  best,      ///< io_uring where the system allows it, else threads
  io_uring,  ///< an error where it is not available
  threads,
};

/// Errors: ErrorCode::not_supported if io_uring is asked for and not available.
inline std::unique_ptr<ReadQueue> make_read_queue(const std::shared_ptr<const InputFile>& file, ReadEngine engine) {
#if defined(__linux__) && __has_include(<linux/io_uring.h>)
  if (engine != ReadEngine::threads) {
    if (auto queue = IoUringReadQueue::make(file)) return queue;
  }
#endif
  if (engine == ReadEngine::io_uring) {
    fail(ErrorCode::not_supported, file->name(), ": this system has no io_uring or does not allow it");
  }
  return std::make_unique<ThreadReadQueue>(file);
}

}  // namespace ple::inline PLE_ABI
