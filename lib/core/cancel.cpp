#include "core/cancel.h"

#include <atomic>

#include "core/error.h"

namespace slmc {
namespace {

std::atomic<int> asked{0};
static_assert(std::atomic<int>::is_always_lock_free);  // else it would not be async-signal-safe

}  // namespace

void request_cancel(int signal) noexcept { asked.store(signal); }
int cancel_requested() noexcept { return asked.load(std::memory_order_relaxed); }
void clear_cancel() noexcept { asked.store(0); }

void cancel_point(const std::string& saved) {
  if (cancel_requested() != 0) throw Error(ErrorKind::Interrupted, "stopped as asked; " + saved);
}

}  // namespace slmc
