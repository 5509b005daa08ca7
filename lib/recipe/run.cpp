#include "recipe/run.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "core/cancel.h"
#include "core/file.h"
#include "core/units.h"
#include "ir/cost.h"
#include "recipe/decode.h"
#include "recipe/document.h"
#include "recipe/lineage.h"
#include "recipe/run_state.h"
#include "recipe/store.h"

namespace slmc::recipe {
namespace fs = std::filesystem;

namespace {

constexpr int kEngineVersion = 1;

std::string device_kind(const std::string& device) { return device.substr(0, device.find(':')); }

void keep_gemm(const RunState& state) {
  const fs::path file = state.options.work / "engine.json";
  const std::string device = device_kind(state.options.device);
  const std::string& gemm = state.chain.environment.facts->gemm;
  if (kept_gemm(state.options.work, device) == gemm) return;
  Json kept = {{"slmc_engine", kEngineVersion}, {"gemm", Json::object()}};
  for (const std::string& other : {std::string("cpu"), std::string("cuda")}) {
    const std::string value = other == device ? gemm : kept_gemm(state.options.work, other);
    if (!value.empty()) kept["gemm"][other] = value;
  }
  write_json(file, kept);
}

std::size_t index_of(const Chain& chain, const std::string& id, const char* option) {
  std::vector<std::string> ids;
  for (const StageForecast& stage : chain.stages) ids.push_back(stage.out.id);
  const auto it = std::find(ids.begin(), ids.end(), id);
  if (it != ids.end()) return static_cast<std::size_t>(it - ids.begin());
  const std::string guess = closest(id, ids);
  throw Error(ErrorKind::Usage,
              fmt::format("the option --{} must name a stage of the recipe, but '{}' is none", option, id),
              guess.empty() ? "" : fmt::format("did you mean '{}'?", guess));
}

// Which stages run: those asked for by force, and those whose artefact is missing although something needs
// it. What nothing needs any more (a stage before one that is reused) may be missing.
struct Decision {
  std::size_t stages = 0;  // how many of the chain this run is about (--until)
  std::vector<std::optional<Json>> manifests;
  std::vector<bool> present;  // the artefact is there, whole
  std::vector<bool> runs;
};

class Needs {
 public:
  Needs(const Chain& chain, Decision& decision) : chain_(chain), decision_(decision) {}
  // `id` must be there: run its stage unless it is.
  void need(const std::string& id) {
    if (id.empty() || id == "model") return;
    for (std::size_t i = 0; i < decision_.stages; ++i) {
      if (chain_.stages[i].out.id == id && !decision_.present[i]) run(i);
    }
  }
  void run(std::size_t i) {
    if (decision_.runs[i]) return;
    decision_.runs[i] = true;
    for (const auto& [name, input] : chain_.stages[i].models) need(input.id);
  }

 private:
  const Chain& chain_;
  Decision& decision_;
};

bool is_measured(const Chain& chain, std::size_t i, std::size_t stages) {
  return chain.recipe.eval && (chain.recipe.eval->every_stage || i + 1 == stages);
}

// `thorough` reads every byte of what is there; else sizes must do.
Decision decide(const Chain& chain, const RunOptions& options, bool thorough) {
  Decision out;
  out.stages = options.until.empty() ? chain.stages.size() : index_of(chain, options.until, "until") + 1;
  const std::size_t from = options.from.empty() ? 0 : index_of(chain, options.from, "from");
  for (std::size_t i = 0; i < out.stages; ++i) {
    const StageForecast& stage = chain.stages[i];
    out.manifests.push_back(read_manifest(stage.folder, stage.key));
    out.present.push_back(out.manifests[i] && artefact_is_whole(stage.folder, *out.manifests[i], thorough));
  }
  out.runs.assign(out.stages, false);
  Needs needs(chain, out);
  for (const std::string& id : options.force) {
    if (id != "*") index_of(chain, id, "again");
  }
  for (std::size_t i = out.stages; i-- > 0;) {
    const bool forced = is_forced(options, chain.stages[i].out.id);
    const bool unmeasured = is_measured(chain, i, out.stages) && !is_evaluated(chain, chain.stages[i].key);
    if (forced || !out.manifests[i]) needs.run(i);
    if (i + 1 == out.stages || unmeasured) needs.need(chain.stages[i].out.id);
    if (unmeasured && chain.reference) needs.need(chain.reference->id);
  }
  if (chain.recipe.eval && chain.reference && !chain.input.blank && !is_evaluated(chain, chain.model_key))
    needs.need(chain.reference->id);
  for (std::size_t i = 0; i < from; ++i) {
    if (i >= out.stages || !out.runs[i]) continue;
    throw Error(ErrorKind::Usage,
                fmt::format("the stages before --from {} must be finished, but '{}' is not", options.from,
                            chain.stages[i].out.id),
                "run without --from, or begin at that stage");
  }
  return out;
}

void require_disk(const RunState& state, const Decision& decision) {
  std::uint64_t wanted = state.options.least_free_disk;
  for (std::size_t i = 0; i < decision.stages; ++i) {
    // The model, and for training three copies of its weights in fp32 (weights and two moments).
    const Artefact& out = state.chain.stages[i].out;
    if (decision.runs[i])
      wanted +=
          static_cast<std::uint64_t>(out.bytes) +
          (state.chain.recipe.stages[i].info->trains ? 12 * static_cast<std::uint64_t>(out.parameters) : 0);
  }
  const std::uint64_t have = free_bytes(state.options.work);
  if (have >= wanted) return;
  throw Error(
      ErrorKind::Resource, Place{state.options.work.string(), 0, 0, 1, {}},
      fmt::format("the disk must have about {} free, but has {}", format_bytes(wanted), format_bytes(have)),
      "free some space, or choose another folder with --work");
}

// A forecast above the limit: better told now than by an engine that is stopped after hours.
void require_memory(const Chain& chain, const RunOptions& options, const std::vector<bool>& runs) {
  if (options.max_ram == 0) return;
  std::vector<Diagnostic> over;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const StageForecast& stage = chain.stages[i];
    const StageEntry& entry = chain.recipe.stages[i];
    if (!runs[i] || stage.peak_bytes <= options.max_ram) continue;
    over.push_back({fmt::format("the stage '{}' ({}) must fit {} of memory (--max-ram), but is forecast to take {}", entry.id, entry.use,
                                format_bytes(options.max_ram), format_bytes(stage.peak_bytes)),
                    entry.place, entry.info->trains ? "recompute: true and a smaller micro_batch take less" : ""});
  }
  throw_problems(std::move(over), chain.recipe.text, ErrorKind::Resource);
}

void require_output(const RunOptions& options) {
  if (options.output.empty() || options.replace_output || !fs::exists(options.output)) return;
  if (fs::is_directory(options.output) && fs::is_empty(options.output)) return;
  throw Error(ErrorKind::Usage, Place{options.output.string(), 0, 0, 1, {}},
              "the output must be new, but is there already", "choose another name, or replace it with -f");
}

Row input_row(const Chain& chain) {
  Row row;
  row.artefact = chain.input;
  row.path = chain.model_path;
  row.key = chain.model_key;
  row.file_bytes = chain.input.blank ? 0 : ir::file_bytes(chain.model_path);
  return row;
}

// The lineage beside a finished artefact gets the numbers measured before and after its stage.
void note_metrics(const Row& row, const Row& before) {
  if (!fs::exists(row.path)) return;
  Json lineage = read_lineage(row.path);
  if (lineage.empty()) return;
  const Json old = lineage.back();
  Json& metrics = lineage.back()["metrics"] = Json::object();
  for (const auto& [name, from] : {std::pair{"before", &before}, {"after", &row}}) {
    metrics[name] = Json::object();
    for (const auto& [metric, value] : from->metrics) metrics[name][metric] = value;
  }
  if (lineage.back() != old) write_lineage(row.path, lineage);
}

// The same lineage gets the measurements and gates that this run asks for, for a recipe that asks for them again. They decide no byte of
// the model, so the metadata of a GGUF does without.
void note_recipe(const RunState& state, std::size_t i, const Row& row) {
  if (!fs::exists(row.path)) return;
  const Recipe& recipe = state.chain.recipe;
  Json lineage = read_lineage(row.path);
  if (lineage.empty()) return;
  const Json old = lineage.back();
  for (const char* key : {"eval", "reference", "gates"}) lineage.back().erase(key);
  if (recipe.eval) lineage.back()["eval"] = eval_json(*recipe.eval, {});
  if (recipe.eval && state.chain.reference)
    lineage.back()["reference"] = {{"key", state.chain.reference->key}, {"source", state.chain.reference->source}};
  if (!recipe.gates.empty() && i + 1 == state.chain.stages.size()) lineage.back()["gates"] = gates_json(recipe.gates);
  if (lineage.back() != old) write_lineage(row.path, lineage);
}

void run_stages(RunState& state, Decision& decision) {
  const Chain& chain = state.chain;
  state.rows.push_back(input_row(chain));
  add_own_metrics(state.rows[0], state.rows[0]);
  // A reference that a stage makes can only be compared with once it is there: the input is then measured
  // after it.
  const bool reference_is_made =
      chain.reference && !chain.reference->id.empty() && chain.reference->id != "model";
  const bool input_is_measured = chain.recipe.eval && !chain.input.blank;
  if (input_is_measured && !reference_is_made) evaluate(state, state.rows[0]);
  std::vector<std::size_t> unmeasured;
  for (std::size_t i = 0; i < decision.stages; ++i) {
    cancel_point("finished stages are kept; the same command goes on from here");
    if (decision.runs[i]) {
      decision.runs[i] = make_stage(state, i);
      decision.manifests[i] = read_manifest(chain.stages[i].folder, chain.stages[i].key);
      SLMC_CHECK(decision.manifests[i].has_value());
    } else {
      state.emit({{"event", "stage"},
                  {"stage", chain.stages[i].out.id},
                  {"key", chain.stages[i].key},
                  {"state", "reused"}});
    }
    Row row = row_of(state, i, *decision.manifests[i]);
    row.reused = !decision.runs[i];
    add_own_metrics(row, state.rows[0]);
    note_recipe(state, i, row);
    state.rows.push_back(std::move(row));
    const bool reference_is_here =
        !reference_is_made || std::any_of(state.rows.begin(), state.rows.end(),
                                          [&](const Row& r) { return r.artefact.id == chain.reference->id; });
    if (is_measured(chain, i, decision.stages)) unmeasured.push_back(i);
    if (!reference_is_here) continue;
    if (input_is_measured && reference_is_made && chain.stages[i].out.id == chain.reference->id)
      evaluate(state, state.rows[0]);
    for (const std::size_t k : unmeasured) evaluate(state, state.rows[k + 1]);
    for (const std::size_t k : unmeasured) note_metrics(state.rows[k + 1], state.rows[k]);
    unmeasured.clear();
  }
}

void drop_artefacts(const RunState& state) {
  for (std::size_t i = 1; i + 1 < state.rows.size(); ++i) {
    const fs::path partial = state.rows[i].path;
    std::error_code ignored;
    fs::remove_all(partial, ignored);
  }
}

RunResult run_all(RunState& state) {
  const RunOptions& options = state.options;
  require_output(options);
  Decision decision = decide(state.chain, options, true);
  require_memory(state.chain, options, decision.runs);
  fs::create_directories(options.work);
  require_disk(state, decision);
  keep_gemm(state);
  Json ids = Json::array();
  for (std::size_t i = 0; i < decision.stages; ++i) ids.push_back(state.chain.stages[i].out.id);
  state.emit({{"event", "run"}, {"recipe", state.chain.recipe.name}, {"stages", ids}});
  run_stages(state, decision);
  RunResult result;
  if (decision.stages == state.chain.stages.size())
    result.gates = judge(state.chain.recipe.gates, state.rows);
  for (const GateResult& gate : result.gates) {
    result.gates_met = result.gates_met && gate.met;
    state.emit({{"event", "gate"},
                {"metric", gate.gate.metric},
                {"value", gate.value ? Json(*gate.value) : Json(nullptr)},
                {"met", gate.met}});
  }
  result.output = state.rows.back().path;
  if (!options.output.empty()) {
    deliver(result.output, options.output, options.replace_output);
    result.output = options.output;
  }
  if (options.keep == Keep::Last) drop_artefacts(state);
  result.warnings = state.chain.warnings;
  result.facts = *state.chain.environment.facts;
  result.rows = std::move(state.rows);
  return result;
}

}  // namespace

bool is_forced(const RunOptions& options, const std::string& id) {
  return std::any_of(options.force.begin(), options.force.end(),
                     [&](const std::string& wanted) { return wanted == "*" || wanted == id; });
}

std::string kept_gemm(const fs::path& work, const std::string& device) {
  const fs::path file = work / "engine.json";
  if (!fs::exists(file)) return {};
  try {
    const Json kept = read_json(file, ErrorKind::Model);
    if (kept.value("slmc_engine", 0) == kEngineVersion) return kept.at("gemm").value(device_kind(device), "");
  } catch (const Error&) {  // damaged: chosen afresh
  } catch (const Json::exception&) {
  }
  return {};
}

std::vector<bool> check_run(const Chain& chain, const RunOptions& options) {
  std::vector<bool> runs;
  if (chain.environment.facts) {
    runs = decide(chain, options, false).runs;
  } else {
    const std::size_t from = options.from.empty() ? 0 : index_of(chain, options.from, "from");
    runs.assign(options.until.empty() ? chain.stages.size() : index_of(chain, options.until, "until") + 1, true);
    std::fill_n(runs.begin(), std::min(from, runs.size()), false);
  }
  require_memory(chain, options, runs);
  return runs;
}

RunResult run(const Chain& chain, const RunOptions& options, const Executor& execute, const Sink& sink) {
  SLMC_CHECK(chain.environment.facts.has_value());
  SLMC_CHECK(options.work == chain.environment.work && options.threads == chain.environment.threads);
  const Sink emit = [&](const Json& event) {
    if (sink) sink(event);
  };
  RunState state{chain, options, execute, emit, {}};
  try {
    return run_all(state);
  } catch (const fs::filesystem_error& error) {
    throw Error(ErrorKind::Resource, Place{error.path1().string(), 0, 0, 1, {}},
                fmt::format("the work folder must be usable, but is not: {}", error.code().message()));
  }
}

}  // namespace slmc::recipe
