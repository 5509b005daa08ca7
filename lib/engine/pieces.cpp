#include "engine/pieces.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>

namespace slmc::engine {
namespace {

// The number of threads of this thread and everything it calls, MKL included: inside a parallel region MKL still cuts its
// factorisations for as many threads as were set (seen with potrf in torch 2.13), only to run them on one.
class OneThread {
 public:
  explicit OneThread(int before) : before_(before) { at::set_num_threads(1); }
  ~OneThread() { at::set_num_threads(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

}  // namespace

void for_pieces(std::int64_t pieces, const std::function<void(std::int64_t)>& body) {
  const int threads = at::get_num_threads();
  std::atomic<std::int64_t> next{0};               // pieces differ in cost; whoever is free takes the next one
  const auto work = [&](std::int64_t, std::int64_t) {
    const OneThread one(threads);
    for (std::int64_t i = next++; i < pieces; i = next++) body(i);
  };
  if (threads == 1 || pieces == 1) return work(0, 1);
  at::parallel_for(0, std::min<std::int64_t>(threads, pieces), 1, work);
}

}  // namespace slmc::engine
