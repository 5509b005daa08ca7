#pragma once
// From a decoded recipe to what the user sees: resolve, plan or run, table, report, exit code. `run`, `plan` and every stage
// command go through it, so a stage command is a one-stage recipe in fact.
#include <filesystem>
#include <string>
#include <vector>

#include "apps/slmc/context.h"
#include "recipe/run.h"

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

// The chain as `slmc plan` prints it.
std::string plan_text(const recipe::Chain& chain, bool plain);

}  // namespace slmc::cli
