#pragma once
// The rows of the table in commands.cpp; each is made in the cmd_*.cpp that holds its function.
#include "apps/slmc/command.h"
#include "stage/info.h"

namespace slmc::cli {

Command run_command();
Command plan_command();
Command recipe_check_command();
Command recipe_schema_command();
Command recipe_init_command();
Command stage_command(const stage::StageInfo& info);      // prune, drop, distill, ...: a recipe of one stage
Command edit_command();
Command convert_command();
Command verify_command();
Command eval_command();
Command bench_command();
Command inspect_command();
Command generate_command();
Command chat_command();
Command compare_command();
Command diff_command();
Command log_command();
Command doctor_command();
Command completion_command();
Command help_command();
Command version_command();

}  // namespace slmc::cli
