#include "stage/job.h"

#include <nlohmann/json.hpp>

namespace slmc::stage {
namespace {

constexpr int kJobVersion = 1;

Json diagnostic_json(const Diagnostic& d) {
  Json out = {{"message", d.message}};
  if (!d.place.file.empty()) out["file"] = d.place.file;
  if (d.place.line > 0) out["line"] = d.place.line;
  if (d.place.column > 0) out["column"] = d.place.column;
  if (d.place.width > 1) out["width"] = d.place.width;
  if (!d.place.line_text.empty()) out["line_text"] = d.place.line_text;
  if (!d.hint.empty()) out["hint"] = d.hint;
  return out;
}

// Fields of an event that a dying process may have left half true: what is missing or of the wrong type is
// empty.
std::string text_of(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
}

int int_of(const Json& object, const char* key, int fallback) {
  const auto it = object.find(key);
  return it != object.end() && it->is_number_integer() ? it->get<int>() : fallback;
}

Diagnostic diagnostic_from(const Json& json) {
  if (!json.is_object()) return Diagnostic{"the engine's error must be an object, but is not", Place{}, ""};
  return {text_of(json, "message"),
          {text_of(json, "file"), int_of(json, "line", 0), int_of(json, "column", 0),
           int_of(json, "width", 1), text_of(json, "line_text")},
          text_of(json, "hint")};
}

}  // namespace

Json to_json(const Job& job) {
  Json out = {{"slmc_job", kJobVersion},
              {"op", job.op},
              {"model", job.model},
              {"out", job.out},
              {"settings", to_json(job.settings)}};
  out["models"] = Json::object();
  for (const auto& [name, path] : job.models) out["models"][name] = path;
  out["data"] = job.data ? *job.data : Json::object();
  out["seed"] = job.seed;
  out["device"] = job.device;
  out["threads"] = job.threads;
  out["max_ram"] = job.max_ram;
  out["gemm"] = job.gemm;
  out["cache"] = job.cache;
  out["resume"] = job.resume;
  out["templates"] = job.templates;
  return out;
}

Job job_from_json(const Json& json, const std::vector<Setting>& table) {
  Fields fields(json, "the job", "", ErrorKind::Internal);
  if (fields.integer("slmc_job") != kJobVersion)
    fields.fail("slmc_job", "must be 1, but is not", "slmc and slmc-engine are of different versions");
  Job job;
  job.op = fields.text("op");
  job.model = fields.text_or("model", "");
  job.out = fields.text_or("out", "");
  std::vector<Diagnostic> problems;
  const Json none = Json::object();
  const Json* settings = fields.find("settings");
  job.settings = parse_settings(table, settings ? *settings : none, {}, problems);
  if (!problems.empty()) throw Error(ErrorKind::Internal, std::move(problems));
  if (const Json* models = fields.find("models")) {
    for (const auto& [name, path] : models->items()) {
      if (!path.is_string()) fields.fail("models", "must hold paths, but does not");
      job.models[name] = path.get<std::string>();
    }
  }
  const Json* data = fields.find("data");
  job.data = std::make_shared<const Json>(data ? *data : none);
  if (const Json* seed = fields.find("seed")) {
    if (!seed->is_number_integer()) fields.fail("seed", "must be a whole number, but is not");
    job.seed = seed->get<std::uint64_t>();
  }
  job.device = fields.text_or("device", "cpu");
  job.threads = static_cast<int>(fields.integer_or("threads", 0));
  job.max_ram = static_cast<std::uint64_t>(fields.integer_or("max_ram", 0));
  job.gemm = fields.text_or("gemm", "auto");
  job.cache = fields.text_or("cache", "");
  job.resume = fields.text_or("resume", "");
  job.templates = fields.text_or("templates", "");
  fields.finish();
  return job;
}

void Events::note(const std::string& text) { emit({{"event", "note"}, {"text", text}}); }
void Events::warning(const std::string& text) { emit({{"event", "warning"}, {"text", text}}); }

void Events::progress(const std::string& what, std::int64_t done, std::int64_t of) {
  emit({{"event", "progress"}, {"what", what}, {"done", done}, {"of", of}});
}

Json error_event(const Error& error) {
  Json all = Json::array();
  for (const Diagnostic& d : error.diagnostics()) all.push_back(diagnostic_json(d));
  return {{"event", "error"},
          {"kind", std::string(to_string(error.kind()))},
          {"diagnostics", all},
          {"trail", error.trail()}};
}

Error error_from_event(const Json& event) {
  std::vector<Diagnostic> all;
  const Json none = Json::array();
  const auto list = event.is_object() && event.contains("diagnostics") ? event["diagnostics"] : none;
  for (const Json& d : list) all.push_back(diagnostic_from(d));
  if (all.empty())
    all.push_back(
        Diagnostic{"the engine must say what failed, but did not", Place{}, "run it again with -v"});
  Error error(event.is_object() ? error_kind_from(text_of(event, "kind")) : ErrorKind::Internal,
              std::move(all));
  if (event.is_object() && event.contains("trail") && event["trail"].is_array()) {
    for (const Json& step : event["trail"]) {
      if (step.is_string()) error.while_doing(step.get<std::string>());
    }
  }
  return error;
}

}  // namespace slmc::stage
