#include "core/parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <limits>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace slmc {
namespace {

std::atomic<int> thread_count{1};
thread_local bool inside = false;  // a nested parallel_for runs on the thread that calls it

// Hands out pieces in rising order and skips those above a failing one. Every piece below it was handed out
// before and is finished, so the lowest failing piece is the same for any number of threads.
class Work {
 public:
  Work(std::int64_t pieces, const std::function<void(std::int64_t)>& body) : pieces_(pieces), body_(body) {}

  void run() {
    inside = true;
    for (std::int64_t i = next_++; i < pieces_ && i < lowest_; i = next_++) {
      try {
        body_(i);
      } catch (...) {
        record(i);
      }
    }
    inside = false;
  }

  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  void record(std::int64_t piece) {
    const std::lock_guard lock(mutex_);
    if (piece > lowest_) return;
    lowest_ = piece;
    error_ = std::current_exception();
  }

  const std::int64_t pieces_;
  const std::function<void(std::int64_t)>& body_;
  std::atomic<std::int64_t> next_{0};
  std::mutex mutex_;
  std::atomic<std::int64_t> lowest_{std::numeric_limits<std::int64_t>::max()};  // failing piece so far
  std::exception_ptr error_;
};

}  // namespace

void set_threads(int n) {
  thread_count = n > 0 ? n : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

int threads() { return thread_count; }

void parallel_for(std::int64_t pieces, const std::function<void(std::int64_t)>& body) {
  if (inside || threads() == 1 || pieces <= 1) {
    for (std::int64_t i = 0; i < pieces; ++i) body(i);
    return;
  }
  Work work(pieces, body);
  {
    std::vector<std::jthread> helpers;
    const std::int64_t wanted = std::min<std::int64_t>(threads(), pieces) - 1;
    try {
      for (std::int64_t t = 0; t < wanted; ++t) helpers.emplace_back([&work] { work.run(); });
    } catch (const std::system_error&) {  // no more threads to be had: fewer do the same work
    }
    work.run();
  }
  work.rethrow();
}

}  // namespace slmc
