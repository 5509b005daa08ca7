#pragma once
// Asking a long computation to stop. Only main() installs handlers; they only set this flag. Loops poll it at borders
// where everything worth keeping can be saved, then throw Error(Interrupted).
#include <string>

namespace slmc {

void request_cancel(int signal) noexcept;      // async-signal-safe
int cancel_requested() noexcept;               // 0, or the signal's number
void clear_cancel() noexcept;                  // tests
void cancel_point(const std::string& saved);   // throws Error(Interrupted, "stopped as asked; SAVED") when requested

}  // namespace slmc
