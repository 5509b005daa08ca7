#pragma once
// Ctrl-C in two stages: the first SIGINT or SIGTERM asks everything to save and stop, the second stops at once. The engine runs in a
// process group of its own, so that it hears of either only from here, once.
#include <sys/types.h>

namespace slmc::cli {

void install_signal_handlers();
// The engine that signals go to; 0 = none.
void set_engine(pid_t pid) noexcept;
// In a chat a SIGINT ends the answer, not the program; it is passed on and not counted.
void set_interrupt_ends_turn(bool on) noexcept;
int exit_code_of_signal(int signal) noexcept;           // 130, 143

}  // namespace slmc::cli
