#pragma once
// What a subcommand gets: its arguments, the terminal, the surroundings. And the few things that most of them do with it.
#include <string>
#include <vector>

#include "apps/slmc/command.h"
#include "apps/slmc/surroundings.h"
#include "apps/slmc/terminal.h"
#include "ir/model.h"

namespace slmc::cli {

enum ExitCode { kDone = 0, kFailed = 1, kUsage = 2, kGateNotMet = 3 };      // the rest follow from Error::kind

struct Context {
  const Command& command;
  const Arguments& args;
  Terminal& term;
  const Surroundings& around;
  std::vector<std::string> words;             // as typed, without "slmc"
};

ir::Model load_model(const Context& context, const std::string& where);
int threads(const Context& context);          // --threads, SLMC_THREADS, or all cores; at least 1
std::string device(const Context& context);   // --device, SLMC_DEVICE, or cpu
std::uint64_t max_ram(const Context& context);   // bytes; 0 = no limit

}  // namespace slmc::cli
