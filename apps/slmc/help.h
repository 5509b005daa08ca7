#pragma once
// Help as text, made from the table of commands and the settings tables.
#include <string>
#include <vector>

#include "apps/slmc/command.h"

namespace slmc::cli {

std::string program_help(bool whole);                     // whole: every subcommand, else the way in
std::string command_help(const Command& command);

struct Topic {
  std::string name, summary;
  std::string (*text)();
};
const std::vector<Topic>& topics();

}  // namespace slmc::cli
