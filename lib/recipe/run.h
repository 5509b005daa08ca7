#pragma once
// Runs a resolved chain. Each stage gets work/<nn>-<id>-<key8>/, made under a hidden name, locked while it is
// written, its manifest last, then renamed: a folder without the dot is whole. Kill it anywhere and run it
// again: finished stages are reused, training goes on from its checkpoint, the rest starts afresh, and the
// bytes are those of a run that was never stopped.
//
//   work/01-depth-1a2b3c4d/       model/ or model.gguf    the artefact, its lineage in or beside it
//                                 result.json             the op's document
//                                 measured.json           seconds, memory: not part of "the same bytes"
//                                 manifest.json           key, what went into it, SHA-256 of each file
//   work/.02-width-5e6f7a8b/      being made; resume/ holds checkpoints
//   work/eval/<key>.json          one evaluation of one artefact
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "recipe/metrics.h"
#include "recipe/resolve.h"
#include "stage/job.h"

namespace slmc::recipe {

using Sink = std::function<void(const Json& event)>;
// Runs one job to its end and returns its result event; forwards every event. Throws the job's Error; an
// engine that died is Error(Internal) or Error(Resource). May add "measured": {"seconds", "cpu_seconds",
// "peak_bytes"} to the result.
using Executor = std::function<Json(const stage::Job& job, const Sink& sink)>;

enum class Keep { All, Last };  // stage folders of this recipe after a run that succeeded

struct RunOptions {
  std::filesystem::path work;    // as in the chain's environment; made when missing
  std::filesystem::path cache;   // statistics, shared between runs
  // The last artefact is delivered here as well (copied); empty = stays in work
  std::filesystem::path output;
  bool replace_output = false;
  std::string from;                // stages before it must be there already
  std::string until;               // stops after it
  std::vector<std::string> force;  // ids to make again although they are there; "*" = all
  Keep keep = Keep::All;
  std::string device = "cpu";
  int threads = 1;            // as in the chain's environment
  std::uint64_t max_ram = 0;  // bytes; 0 = no limit
  // Kept free beyond the forecast; checked before anything starts
  std::uint64_t least_free_disk = 256u << 20;
};

// One row of the table: the input or a stage's model.
struct Row {
  Artefact artefact;
  std::string use;             // "" for the input
  std::filesystem::path path;  // of the artefact
  std::filesystem::path folder;
  std::string key;
  bool reused = false;
  std::int64_t file_bytes = 0;  // ir::file_bytes
  // "ppl", "ppl_ratio", "kl", "top1", "acc:hellaswag", "file_bytes", "parameters"
  std::map<std::string, double> metrics;
  SharedJson result;                    // the op's document
  double seconds = 0, cpu_seconds = 0;  // of the run that made it
  std::uint64_t peak_bytes = 0;
};

struct GateResult {
  Gate gate;
  std::optional<double> value;  // nothing: could not be measured, counts as not met
  bool met = false;
};

struct RunResult {
  std::vector<Row> rows;          // input first
  std::vector<GateResult> gates;  // empty when stopped by `until`
  bool gates_met = true;
  std::filesystem::path output;  // the last artefact's final place
  std::vector<std::string> warnings;
  EngineFacts facts;
  double seconds = 0;  // of the whole run, evaluations included; by the caller, who has a clock
};

// Events of its own, besides those forwarded (each forwarded one gets "stage": id):
//   {"event": "run", "recipe": name, "stages": [ids]}
//   {"event": "stage", "stage": id, "key": ..., "state": "reused" | "started" | "resumed" | "done"}
//   {"event": "eval", "stage": id, "metrics": {...}}
//   {"event": "gate", "metric": ..., "value": ..., "met": true}
// Which of the chain's stages `run` would make with these options, up to `until`. What `run` refuses before any work is refused here:
// Error(Usage) for options that name no stage and for unfinished stages before `from`, Error(Resource) for a stage to be made whose
// forecast is above `max_ram`. Without the engine's facts nothing is known to be there already: every stage from `from` on.
std::vector<bool> check_run(const Chain& chain, const RunOptions& options);

RunResult run(const Chain& chain, const RunOptions& options, const Executor& execute, const Sink& sink);

// Whether a work folder holds anything that the same command would go on from: a finished stage, or checkpoints of one.
bool holds_progress(const std::filesystem::path& work);

// The kernel path that this work folder started with on "cpu" or "cuda", "" for none: ask the engine for it,
// so that a measurement that could go either way does not split a chain. `run` writes it.
std::string kept_gemm(const std::filesystem::path& work, const std::string& device = "cpu");

}  // namespace slmc::recipe
