#pragma once
// From a decoded recipe to what the user sees: resolve, plan or run, table, report, exit code. `run`, `plan` and every stage
// command go through it, so a stage command is a one-stage recipe in fact.
#include <filesystem>
#include <string>
#include <vector>

#include "apps/slmc/context.h"
#include "recipe/run.h"
#include "report/html.h"

namespace slmc::cli {

struct DriveOptions {
  std::filesystem::path work;
  std::filesystem::path output;             // deliver the last model here too; empty = no
  std::string from, until;
  std::vector<std::string> force;
  recipe::Keep keep = recipe::Keep::All;
  bool plan_only = false;
  bool keeps_work = true;                   // false: the caller removes `work`; only the delivered model stays
  std::string go_on;                        // for the error of a dead or interrupted engine: "go on with: ..."
};

// The exit code: done, or a gate not met.
int drive(Context& context, recipe::Recipe recipe, const DriveOptions& options);

// The same for the recipes of a sweep: each chain in turn, what is common shared by key, one table, one CSV beside the report, one page.
int drive_sweep(Context& context, std::vector<recipe::Recipe> recipes, const DriveOptions& options);

// What both are made of.
recipe::Environment environment(const Context& context, const DriveOptions& options);
recipe::RunOptions run_options(const Context& context, const DriveOptions& options);
std::string local_time();
report::ReportRow report_row(const recipe::Row& row);
std::vector<std::pair<std::string, std::string>> environment_lines(const recipe::EngineFacts& facts);
Json run_json(const recipe::Chain& chain, const recipe::RunResult& result);

// The chain as `slmc plan` prints it.
std::string plan_text(const recipe::Chain& chain, bool plain);

}  // namespace slmc::cli
