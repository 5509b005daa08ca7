// Evaluations of a run: one eval job per artefact, kept in work/eval/<key>.json, and the gates.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/file.h"
#include "core/hash.h"
#include "recipe/keys.h"
#include "recipe/run_state.h"
#include "stage/measures.h"

namespace slmc::recipe {
namespace fs = std::filesystem;

namespace {

constexpr int kEvalVersion = 1;

// One task as the engine reads it, with or without its file.
Json task_json(const EvalTask& task, bool with_file) {
  Json out = {{task.kind, with_file ? task.file.string() : ""}};
  if (task.kind == "ppl") {
    out["window"] = task.settings.integer("window");
    out["windows"] = task.settings.integer("windows");
  } else if (task.kind == "classify") {
    out["per_class"] = task.settings.integer("per_class");
  } else {
    out["first"] = task.settings.integer("first");
  }
  return out;
}

Json tasks_json(const EvalSection& section, bool with_files) {
  Json out = Json::array();
  for (const EvalTask& task : section.tasks) out.push_back(task_json(task, with_files));
  return out;
}

fs::path eval_file(const Chain& chain, const std::string& artefact_key) {
  return chain.environment.work / "eval" / (eval_key(chain, artefact_key).substr(0, 16) + ".json");
}

// The kept document; nothing when there is none, or a damaged one.
std::optional<Json> read_eval(const Chain& chain, const std::string& artefact_key) {
  const fs::path file = eval_file(chain, artefact_key);
  if (!fs::exists(file)) return std::nullopt;
  try {
    Json kept = read_json(file, ErrorKind::Model);
    if (kept.value("slmc_eval", 0) != kEvalVersion || kept.value("key", "") != eval_key(chain, artefact_key))
      return std::nullopt;
    eval_metrics(*chain.recipe.eval, kept.at("result"));
    return kept.at("result");
  } catch (const Error&) {
  } catch (const Json::exception&) {
  }
  return std::nullopt;
}

bool is_the_reference(const Chain& chain, const std::string& key) {
  return chain.reference && chain.reference->key == key;
}

Json run_eval(RunState& state, const Row& row) {
  const EvalSection& section = *state.chain.recipe.eval;
  stage::Job job;
  job.op = "eval";
  job.model = row.path.string();
  job.settings.set("tasks", {.value = std::make_shared<const Json>(tasks_json(section, true)),
                             .from = stage::Value::From::Recipe});
  // A model compared with itself needs no second forward pass.
  if (state.chain.reference && !is_the_reference(state.chain, row.key))
    job.models["reference"] = path_of(state, *state.chain.reference).string();
  job.data = std::make_shared<const Json>(Json::object());
  job.device = state.options.device;
  job.threads = state.options.threads;
  job.max_ram = state.options.max_ram;
  job.gemm = state.chain.environment.facts->gemm;
  job.cache = state.options.cache.string();
  const Sink sink = [&](const Json& event) {
    Json tagged = event;
    if (tagged.is_object()) tagged["stage"] = row.artefact.id;
    state.emit(tagged);
  };
  Json result = state.execute(job, sink);
  result.erase("event");
  eval_metrics(section, result);  // refuses a document of the wrong form before it is kept
  const std::string key = eval_key(state.chain, row.key);
  fs::create_directories(state.options.work / "eval");
  write_json(eval_file(state.chain, row.key), {{"slmc_eval", kEvalVersion},
                                               {"key", key},
                                               {"artefact", row.key},
                                               {"id", row.artefact.id},
                                               {"result", result}});
  return result;
}

void add_identities(const EvalSection& section, std::map<std::string, double>& metrics) {
  for (const EvalTask& task : section.tasks) {
    if (task.kind != "ppl") continue;
    const bool whole = task.settings.integer("windows") == 0;
    using Values = std::vector<std::pair<const char*, double>>;
    for (const auto& [name, value] :
         whole ? Values{{"bits_per_byte_ratio", 1}} : Values{{"ppl_ratio", 1}, {"log_ppl_increase", 0}, {"kl", 0}, {"top1_agreement", 1}}) {
      metrics.emplace(name, value);
      metrics[std::string(name) + ":" + task.name] = value;
    }
  }
}

}  // namespace

std::string eval_key(const Chain& chain, const std::string& artefact_key) {
  KeyInputs inputs;
  inputs.op = "eval";
  inputs.method_folder = "lib";
  inputs.models["model"] = artefact_key;
  inputs.arch[chain.input.family] = chain.input.arch;  // a stage's key has those of its model
  if (chain.reference) {
    inputs.models["reference"] = chain.reference->key;
    inputs.arch[chain.reference->family] = chain.reference->arch;
  }
  for (std::size_t i = 0; i < chain.recipe.eval->tasks.size(); ++i)
    inputs.files[std::to_string(i)] = sha256_file(chain.recipe.eval->tasks[i].file);
  inputs.settings = std::make_shared<const Json>(Json{{"tasks", tasks_json(*chain.recipe.eval, false)}});
  inputs.facts = *chain.environment.facts;
  inputs.source = source_hash("lib");
  return key_of(inputs);
}

bool is_evaluated(const Chain& chain, const std::string& artefact_key) {
  return read_eval(chain, artefact_key).has_value();
}

void evaluate(RunState& state, Row& row) {
  std::optional<Json> result = read_eval(state.chain, row.key);
  if (!result) {
    try {
      result = run_eval(state, row);
    } catch (Error& error) {
      error.while_doing(
          fmt::format("while measuring '{}'; finished stages are kept, the same command goes on from here",
                      row.artefact.id));
      throw;
    }
  }
  std::map<std::string, double> metrics = eval_metrics(*state.chain.recipe.eval, *result);
  if (is_the_reference(state.chain, row.key)) add_identities(*state.chain.recipe.eval, metrics);
  row.metrics.merge(metrics);
  Json values = Json::object();
  for (const auto& [name, value] : row.metrics) values[name] = value;
  state.emit({{"event", "eval"}, {"stage", row.artefact.id}, {"metrics", values}});
}

void add_own_metrics(Row& row, const Row& input) {
  const auto ratio = [&](const char* name, double value, double of) {
    if (of > 0) row.metrics[name] = value / of;
  };
  row.metrics["parameters"] = static_cast<double>(row.artefact.parameters);
  row.metrics["file_bytes"] = static_cast<double>(row.file_bytes);
  row.metrics["kv_bytes_per_token"] = static_cast<double>(row.artefact.kv_bytes_per_token);
  ratio("parameters_ratio", row.metrics["parameters"], static_cast<double>(input.artefact.parameters));
  ratio("bytes_ratio", row.metrics["file_bytes"], static_cast<double>(input.file_bytes));
}

std::vector<GateResult> judge(const std::vector<Gate>& gates, const std::vector<Row>& rows) {
  std::map<std::string, double> metrics = rows.back().metrics;
  for (const Row& row : rows) {
    metrics["seconds"] += row.seconds;
    metrics["peak_bytes"] = std::max(metrics["peak_bytes"], static_cast<double>(row.peak_bytes));
  }
  std::vector<GateResult> out;
  for (const Gate& gate : gates) {
    GateResult result{gate, std::nullopt, false};
    const auto it = metrics.find(gate.metric);
    if (it != metrics.end() && std::isfinite(it->second)) {
      result.value = it->second;
      result.met = (!gate.least || it->second >= *gate.least) && (!gate.most || it->second <= *gate.most);
    }
    out.push_back(std::move(result));
  }
  return out;
}

}  // namespace slmc::recipe
