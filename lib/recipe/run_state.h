#pragma once
// Inside recipe: what the pieces of a run share.
#include <map>
#include <string>
#include <vector>

#include "recipe/run.h"

namespace slmc::recipe {

struct RunState {
  const Chain& chain;
  const RunOptions& options;
  const Executor& execute;
  Sink emit;              // to the caller and to the events file
  std::vector<Row> rows;  // the input, then one per finished stage
};

// Path and key of an artefact of the chain ("model" or a stage's id), or of a model from outside.
std::filesystem::path path_of(const RunState& state, const ModelInput& input);

// Whether the caller wants this stage made again although it is there.
bool is_forced(const RunOptions& options, const std::string& id);

// Makes stage `i` and publishes its folder. What a killed run left is taken up. False when another run made it meanwhile.
bool make_stage(RunState& state, std::size_t i);
// The row of stage `i`, whose folder holds a manifest.
Row row_of(const RunState& state, std::size_t i, const Json& manifest);

// ---- evaluation ----
std::string eval_key(const Chain& chain, const std::string& artefact_key);
bool is_evaluated(const Chain& chain, const std::string& artefact_key);
// Adds the evaluation's metrics to the row, from the cache or by an eval job.
void evaluate(RunState& state, Row& row);

// ---- the end ----
void add_own_metrics(Row& row, const Row& input);  // sizes and their ratios
std::vector<GateResult> judge(const std::vector<Gate>& gates, const std::vector<Row>& rows);

}  // namespace slmc::recipe
