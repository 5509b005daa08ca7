#include "apps/slmc/signals.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "core/cancel.h"

namespace slmc::cli {
namespace {

std::atomic<pid_t> engine{0};
std::atomic<bool> ends_turn{false};
static_assert(std::atomic<pid_t>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

void say(const char* text) noexcept {
  [[maybe_unused]] const auto n = write(STDERR_FILENO, text, std::strlen(text));
}

extern "C" void on_signal(int signal) {
  const int saved = errno;
  const pid_t child = engine.load();
  if (signal == SIGINT && ends_turn.load() && child > 0) {
    kill(child, SIGINT);
  } else if (cancel_requested()) {
    if (child > 0) kill(child, SIGKILL);
    _exit(exit_code_of_signal(signal));
  } else {
    request_cancel(signal);
    if (child > 0) kill(child, signal);
    say(child > 0 ? "\nslmc: finishing the step and saving; once more stops now\n" : "\nslmc: stopping; once more stops now\n");
  }
  errno = saved;
}

}  // namespace

void install_signal_handlers() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  sigaddset(&action.sa_mask, SIGINT);
  sigaddset(&action.sa_mask, SIGTERM);
  sigaction(SIGINT, &action, nullptr);                    // no SA_RESTART: a read that waits for a person returns
  sigaction(SIGTERM, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);                               // a pipe that nobody reads is an error of the write
}

void set_engine(pid_t pid) noexcept { engine = pid; }
void set_interrupt_ends_turn(bool on) noexcept { ends_turn = on; }
int exit_code_of_signal(int signal) noexcept { return 128 + signal; }

}  // namespace slmc::cli
