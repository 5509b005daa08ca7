#pragma once
// From argv to a command and its arguments. CLI11 does the splitting; its messages and exit codes stay inside.
#include <string>
#include <vector>

#include "apps/slmc/command.h"

namespace slmc::cli {

struct Parsed {
  const Command* command = nullptr;         // null: no subcommand was given
  Arguments arguments;
  bool help = false;                        // -h or --help
};

// `words` is argv without the program. Error(Usage) with a suggestion for unknown subcommands, options, choices and missing
// or surplus words. With help nothing else is checked.
Parsed parse(const std::vector<std::string>& words);

// A command line as a shell would split it: blanks, quotes, backslashes. For examples and `plan`'s hints.
std::vector<std::string> split_words(const std::string& line);
std::string quote_word(const std::string& word);                    // for printing: quoted when it has to be
std::string join_words(const std::vector<std::string>& words);

}  // namespace slmc::cli
