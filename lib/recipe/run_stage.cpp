// One stage of a run: job, result, lineage, manifest, rename.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/file.h"
#include "core/rng.h"
#include "ir/cost.h"
#include "recipe/keys.h"
#include "recipe/lineage.h"
#include "recipe/run_state.h"
#include "recipe/store.h"

namespace slmc::recipe {
namespace fs = std::filesystem;

namespace {

stage::Job job_of(const RunState& state, std::size_t i, const fs::path& partial) {
  const StageEntry& entry = state.chain.recipe.stages[i];
  const StageForecast& forecast = state.chain.stages[i];
  stage::Job job;
  job.op = entry.use;
  job.model = path_of(state, forecast.models.at("model")).string();
  job.out = (partial / artefact_name(forecast.out.container)).string();
  job.settings = entry.settings;
  for (const auto& [name, input] : forecast.models) {
    if (name != "model") job.models[name] = path_of(state, input).string();
  }
  Json data = Json::object();
  for (const auto& [name, section] : forecast.data) data[name] = *section->spec;
  job.data = std::make_shared<const Json>(std::move(data));
  job.seed = derive_seed(state.chain.recipe.seed, entry.id);
  job.device = state.options.device;
  job.threads = state.options.threads;
  job.max_ram = state.options.max_ram;
  job.gemm = state.chain.environment.facts->gemm;
  job.cache = state.options.cache.string();
  job.resume = (partial / "resume").string();
  return job;
}

Json lineage_entry(const RunState& state, std::size_t i, const Json& result, const Json& measured,
                   const Artefact& made) {
  const Recipe& recipe = state.chain.recipe;
  const StageEntry& entry = recipe.stages[i];
  const StageForecast& forecast = state.chain.stages[i];
  const EngineFacts& facts = *state.chain.environment.facts;
  Json out = {{"slmc_lineage", kLineageVersion},
              {"recipe", {{"name", recipe.name}, {"seed", recipe.seed}}},
              {"id", entry.id},
              {"stage", entry.use}};
  out["settings"] = to_json(entry.settings);
  out["auto"] = Json::array();
  for (const auto& [name, value] : entry.settings.all()) {
    if (value.is_auto || value.from == stage::Value::From::Auto) out["auto"].push_back(name);
  }
  out["resolved"] =
      result.contains("resolved") && result["resolved"].is_object() ? result["resolved"] : Json::object();
  for (const char* what : {"domains", "references"}) {      // weights of the training data over time, and what they followed
    if (result.contains(what)) out[what] = result[what];
  }
  out["key"] = forecast.key;
  out["inputs"] = Json::object();
  for (const auto& [name, input] : forecast.models)
    out["inputs"][name] = {{"key", input.key}, {"source", input.source}};
  out["data"] = Json::object();
  for (const auto& [name, section] : forecast.data) {
    Json licences = Json::object();
    for (const auto& [domain, licence] : section->licences) licences[domain] = licence;
    out["data"][name] = {{"spec", *section->spec}, {"key", data_key(*section)}, {"licences", licences}};
  }
  out["seed"] = derive_seed(recipe.seed, entry.id);
  out["metrics"] = {{"before", Json::object()}, {"after", Json::object()}};
  out["versions"] = {{"slmc", slmc_version()},
                     {"source", source_hash(entry.info->folder)},
                     {"torch", facts.torch},
                     {"device", facts.device},
                     {"gemm", facts.gemm}};
  out["model"] = {{"parameters", made.parameters}};
  out["measured"] = measured;
  return out;
}

// Reads the headers of what the stage made: a model that can't be opened was not made.
Artefact inspect(const RunState& state, const fs::path& model, const Artefact& forecast) {
  if (!fs::exists(model)) {
    throw Error(
        ErrorKind::Internal, Place{model.string(), 0, 0, 1, {}},
        fmt::format("the stage must have written its model, but '{}' is missing", model.filename().string()));
  }
  Artefact out = forecast;
  out.exact = true;
  const ir::Model made =
      ir::load(model.string(), {state.chain.environment.hf_cache, state.chain.environment.templates});
  const ir::Cost cost = ir::cost(made);
  out.parameters = cost.parameters;
  out.kv_bytes_per_token = cost.kv_bytes_per_token;
  return out;
}

Json manifest_of(const RunState& state, std::size_t i, const fs::path& partial, const Artefact& made) {
  const StageForecast& forecast = state.chain.stages[i];
  const std::string artefact = artefact_name(forecast.out.container);
  Json manifest = {{"slmc_manifest", kManifestVersion},
                   {"id", forecast.out.id},
                   {"stage", state.chain.recipe.stages[i].use},
                   {"recipe", state.chain.recipe.name},
                   {"key", forecast.key},
                   {"inputs", *forecast.inputs},
                   {"artefact", artefact},
                   {"container", forecast.out.container},
                   {"model",
                    {{"parameters", made.parameters},
                     {"bytes", ir::file_bytes(partial / artefact)},
                     {"kv_bytes_per_token", made.kv_bytes_per_token}}},
                   {"files", describe_files(partial, artefact)}};
  manifest["check"] = manifest_check(manifest);
  return manifest;
}

// Everything after the engine said that it is done. The manifest is written last.
void finish(RunState& state, std::size_t i, const fs::path& partial, Json result) {
  const StageForecast& forecast = state.chain.stages[i];
  const fs::path model = partial / artefact_name(forecast.out.container);
  Json measured =
      result.contains("measured") && result["measured"].is_object() ? result["measured"] : Json::object();
  result.erase("measured");
  result.erase("event");
  const Artefact made = inspect(state, model, forecast.out);
  Json lineage = read_lineage(path_of(state, forecast.models.at("model")));
  lineage.push_back(lineage_entry(state, i, result, measured, made));
  if (forecast.out.container == "gguf") embed_lineage(model, lineage);
  write_lineage(model, lineage);
  write_json(partial / "result.json", result);
  write_json(partial / "measured.json", measured);
  fs::remove_all(partial / "resume");
  write_json(partial / "manifest.json", manifest_of(state, i, partial, made));
}

void announce(const RunState& state, std::size_t i, const char* what) {
  state.emit({{"event", "stage"},
              {"stage", state.chain.stages[i].out.id},
              {"key", state.chain.stages[i].key},
              {"state", what}});
}

// A failed attempt leaves nothing but checkpoints.
void clean_up(const fs::path& partial) {
  try {
    sweep_partial(partial);
    if (fs::exists(partial / "resume") && !fs::is_empty(partial / "resume")) return;
    fs::remove_all(partial);
  } catch (const fs::filesystem_error&) {  // the error on its way says more
  }
}

void run_job(RunState& state, std::size_t i, const fs::path& partial) {
  fs::create_directories(partial);
  const bool resumed = fs::exists(partial / "resume") && !fs::is_empty(partial / "resume");
  sweep_partial(partial);
  fs::create_directories(partial / "resume");
  announce(state, i, resumed ? "resumed" : "started");
  const std::string id = state.chain.stages[i].out.id;
  const Sink sink = [&](const Json& event) {
    Json tagged = event;
    if (tagged.is_object()) tagged["stage"] = id;
    state.emit(tagged);
  };
  finish(state, i, partial, state.execute(job_of(state, i, partial), sink));
}

}  // namespace

fs::path path_of(const RunState& state, const ModelInput& input) {
  if (input.id.empty() || input.id == "model") return input.path;
  for (const StageForecast& stage : state.chain.stages) {
    if (stage.out.id == input.id) return stage.folder / artefact_name(stage.out.container);
  }
  SLMC_CHECK(false);
  return {};
}

bool make_stage(RunState& state, std::size_t i) {
  const StageForecast& forecast = state.chain.stages[i];
  const fs::path partial = partial_folder(forecast.folder);
  sweep(state.options.work, i + 1, forecast.out.id, forecast.key);
  try {
    const FolderLock lock(lock_folder(forecast.folder));
    take_back(forecast.folder);
    // Another run of the same recipe may have made it since this one looked.
    if (find_whole(forecast.folder, forecast.key) && !is_forced(state.options, forecast.out.id)) {
      announce(state, i, "reused");
      return false;
    }
    // A run killed after the manifest left a whole folder that only lacks its name.
    if (!find_whole(partial, forecast.key)) {
      try {
        run_job(state, i, partial);
      } catch (const Error& error) {
        if (error.kind() != ErrorKind::Interrupted) clean_up(partial);
        throw;
      }
    }
    publish(partial, forecast.folder);
  } catch (Error& error) {
    error.while_doing(
        fmt::format("in stage '{}' ({}); finished stages are kept, the same command goes on from here",
                    forecast.out.id, state.chain.recipe.stages[i].use));
    throw;
  }
  announce(state, i, "done");
  return true;
}

Row row_of(const RunState& state, std::size_t i, const Json& manifest) {
  const StageForecast& forecast = state.chain.stages[i];
  Row row;
  row.artefact = forecast.out;
  row.artefact.exact = true;
  row.use = state.chain.recipe.stages[i].use;
  row.folder = forecast.folder;
  row.path = forecast.folder / artefact_name(forecast.out.container);
  row.key = forecast.key;
  const Json& model = manifest["model"];
  row.artefact.parameters = model.value("parameters", std::int64_t{0});
  row.artefact.kv_bytes_per_token = model.value("kv_bytes_per_token", std::int64_t{0});
  row.artefact.bytes = row.file_bytes = model.value("bytes", std::int64_t{0});
  const auto read = [&](const char* name) {
    return fs::exists(row.folder / name) ? read_json(row.folder / name, ErrorKind::Model) : Json::object();
  };
  row.result = std::make_shared<const Json>(read("result.json"));
  const Json measured = read("measured.json");
  row.seconds = measured.value("seconds", 0.0);
  row.cpu_seconds = measured.value("cpu_seconds", 0.0);
  row.peak_bytes = measured.value("peak_bytes", std::uint64_t{0});
  return row;
}

}  // namespace slmc::recipe
