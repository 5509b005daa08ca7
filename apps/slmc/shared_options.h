#pragma once
// The options that many commands share, each declared once.
#include <vector>

#include "apps/slmc/command.h"

namespace slmc::cli {

std::vector<Option> shared_options(const Shares& shares);   // those that every command takes included
std::vector<Option> every_shared_option();

// Makers of an option from its parts; `fallback` is the default shown in help, "" = none.
Option path_option(std::string name, char letter, std::string value, std::string help);
Option text_option(std::string name, char letter, std::string value, std::string help, std::string fallback = "");
Option flag_option(std::string name, char letter, std::string help);
Option integer_option(std::string name, std::string help, std::string fallback, double least, double most, std::string unit);
Option choice_option(std::string name, std::string help, std::string fallback, std::vector<std::string> choices);
Option repeated(Option option);
Option required(Option option);

// Options of a settings table: underscores become dashes, a Boolean gets --NAME and --no-NAME.
std::vector<Option> options_of(const std::vector<stage::Setting>& table, const std::string& group);

}  // namespace slmc::cli
