// help, version: what the program says about itself.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "apps/slmc/build_info.h"
#include "apps/slmc/commands.h"
#include "apps/slmc/context.h"
#include "apps/slmc/help.h"

namespace slmc::cli {
namespace {

int run_help(Context& context) {
  const std::string first = context.args.text("TOPIC"), second = context.args.text("WORD");
  if (first.empty()) {
    context.term.text(program_help(true));
    return kDone;
  }
  const std::string name = second.empty() ? first : first + " " + second;
  if (const Command* command = find_command(name)) {
    context.term.text(command_help(*command));
    return kDone;
  }
  std::vector<std::string> names;
  for (const Topic& topic : topics()) {
    if (second.empty() && topic.name == first) {
      context.term.text(topic.text());
      return kDone;
    }
    names.push_back(topic.name);
  }
  for (const Command& command : commands()) names.push_back(command.name);
  const std::string near = closest(name, names);
  throw Error(ErrorKind::Usage, fmt::format("unknown topic '{}'", name),
              near.empty() ? "`slmc --help` lists topics and subcommands" : fmt::format("did you mean '{}'?", near));
}

int run_version(Context& context) {
  const BuildInfo info = build_info();
  if (context.term.json()) {
    context.term.document(context.command, {{"version", info.version}, {"revision", info.revision}, {"compiler", info.compiler},
                                      {"build_type", info.build_type}, {"torch", info.torch}});
  } else {
    context.term.text(fmt::format("slmc {} ({})\ncompiler {}, {}\ntorch {}", info.version, info.revision, info.compiler, info.build_type,
                                  info.torch.empty() ? "none: built without the engine" : info.torch));
  }
  return kDone;
}

}  // namespace

Command help_command() {
  return {.name = "help",
          .summary = "explain a subcommand or a topic",
          .run = run_help,
          .positionals = {{.name = "TOPIC", .help = "A topic or a subcommand; nothing lists both.", .required = false},
                          {.name = "WORD", .help = "Second word of a subcommand.", .required = false}},
          .examples = {{"slmc help exit-codes", "what the exit codes mean"},
                       {"slmc help settings", "every stage with its methods and settings"},
                       {"slmc help recipe check", "the same as slmc recipe check --help"}}};
}

Command version_command() {
  return {.name = "version",
          .summary = "version, revision, compiler, the LibTorch it was built for",
          .run = run_version,
          .shares = {.json = true},
          .examples = {{"slmc version --json", "for bug reports and scripts"}},
          .json = {{"version", "of slmc"}, {"revision", "of the sources, -dirty when they were changed"}, {"compiler", "name and version"},
                   {"build_type", "Release, Debug, .."}, {"torch", "version of LibTorch it was built for, empty without the engine"}}};
}

}  // namespace slmc::cli
