// The table of subcommands, in the order of help. A row's options, examples and function stand in its cmd_*.cpp.
#include "apps/slmc/commands.h"

#include "apps/slmc/registry.h"

namespace slmc::cli {
namespace {

std::vector<Command> make_table() {
  return {run_command(), plan_command(), recipe_check_command(), recipe_schema_command(), recipe_init_command(), edit_command(),
          convert_command(), verify_command(), eval_command(), bench_command(), inspect_command(), generate_command(), chat_command(),
          compare_command(), diff_command(), log_command(), doctor_command(), completion_command(), help_command(), version_command()};
}

}  // namespace

const std::vector<Command>& commands() {
  static const std::vector<Command> table = make_table();
  return table;
}

}  // namespace slmc::cli
