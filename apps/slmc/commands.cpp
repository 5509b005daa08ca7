// The table of subcommands, in the order of help. A row's options, examples and function stand in its cmd_*.cpp.
#include "apps/slmc/commands.h"

#include "apps/slmc/registry.h"

namespace slmc::cli {
namespace {

// The stages that are commands, in the order of a recipe.
std::vector<Command> stage_commands() {
  std::vector<Command> out;
  for (const char* name : {"drop", "prune", "shear", "distill", "train", "quantize"}) out.push_back(stage_command(*registry().find(name)));
  return out;
}

std::vector<Command> make_table() {
  std::vector<Command> out = {run_command(), plan_command(), recipe_check_command(), recipe_schema_command(), recipe_init_command()};
  const std::vector<Command> stages = stage_commands();
  out.insert(out.end(), stages.begin(), stages.end());
  const std::vector<Command> rest = {
      edit_command(), convert_command(), verify_command(), eval_command(), bench_command(), inspect_command(), generate_command(),
      chat_command(), compare_command(), diff_command(), log_command(), doctor_command(), completion_command(), help_command(),
      version_command()};
  out.insert(out.end(), rest.begin(), rest.end());
  return out;
}

}  // namespace

const std::vector<Command>& commands() {
  static const std::vector<Command> table = make_table();
  return table;
}

}  // namespace slmc::cli
