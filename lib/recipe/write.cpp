// A Recipe as YAML text that decodes to the same one, and the page that `slmc recipe init` begins with.
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/units.h"
#include "recipe/decode.h"

namespace slmc::recipe {
namespace fs = std::filesystem;
using stage::Setting;
using stage::Type;

namespace {

// Plain where every YAML reader takes it for the same text; JSON's quotes elsewhere, which YAML reads too.
std::string scalar(const std::string& text) {
  const auto plain = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.' || c == '/' || c == '$' ||
           c == '-';
  };
  const bool word = !text.empty() &&
                    (std::isalpha(static_cast<unsigned char>(text[0])) || text[0] == '/' || text[0] == '$' ||
                     text[0] == '.') &&
                    std::all_of(text.begin(), text.end(), plain);
  static const std::vector<std::string> taken = {"null", "Null", "NULL", "true", "false", "yes",
                                                 "no",   "on",   "off",  "y",    "n"};
  std::string lower = text;
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (word && text != "." && std::find(taken.begin(), taken.end(), lower) == taken.end() &&
      !parse_number(text))
    return text;
  std::string quoted = dump_compact(Json(text));
  for (std::size_t at = 0; (at = quoted.find('\x7f', at)) != std::string::npos;)
    quoted.replace(at, 1, "\\x7F");
  return quoted;
}

std::string flow(const Json& json) {
  if (json.is_string()) return scalar(json.get<std::string>());
  if (json.is_number_float()) {
    const double value = json.get<double>();
    return value == std::floor(value) && std::abs(value) < 1e15
               ? std::to_string(static_cast<std::int64_t>(value))
               : format_number(value);
  }
  if (!json.is_structured()) return dump_compact(json);
  std::string out;
  for (const auto& [key, value] : json.items()) {
    out += out.empty() ? "" : ", ";
    if (json.is_object()) out += scalar(key) + ": ";
    out += flow(value);
  }
  return json.is_object() ? "{" + out + "}" : "[" + out + "]";
}

std::string short_path(const std::string& path, const fs::path& folder) {
  if (path.empty() || path[0] != '/' || folder.empty()) return path;
  const fs::path relative = fs::path(path).lexically_relative(fs::absolute(folder).lexically_normal());
  return relative.empty() || *relative.begin() == ".." || relative == "." ? path : relative.string();
}

// One domain or plain section without what is the default anyway.
Json domain_json(const Json& spec, const fs::path& folder, const DataSection& section,
                 const std::string& domain) {
  Json out = Json::object();
  for (const Json& file : spec.value("files", Json::array()))
    out["files"].push_back(short_path(file.get<std::string>(), folder));
  if (spec.value("weight", 1.0) != 1.0) out["weight"] = spec["weight"];
  if (spec.value("field", "text") != "text") out["field"] = spec["field"];
  if (spec.value("label", "label") != "label") out["label"] = spec["label"];
  if (spec.value("skip_last", 0) != 0) out["skip_last"] = spec["skip_last"];
  if (spec.contains("only_last")) out["only_last"] = spec["only_last"];
  const auto licence = section.licences.find(domain);
  if (licence != section.licences.end()) out["licence"] = licence->second;
  return out;
}

Json data_json(const DataSection& section, const std::string& name, const fs::path& folder,
               std::uint64_t seed) {
  const Json& spec = *section.spec;
  Json out = domain_json(spec, folder, section, "");
  if (spec.contains("mix")) {
    out["mix"] = Json::object();
    for (const auto& [domain, value] : spec["mix"].items())
      out["mix"][domain] = domain_json(value, folder, section, domain);
  }
  if (spec.contains("samples") && !(name == "calib" && spec["samples"] == 128))
    out["samples"] = spec["samples"];
  if (spec.contains("seq")) out["seq"] = spec["seq"];
  if (spec.contains("seed") && spec["seed"].get<std::uint64_t>() != seed) out["seed"] = spec["seed"];
  return out;
}

bool worth_writing(const Setting& setting, const stage::Settings& settings) {
  if (!settings.has(setting.name)) return false;
  const stage::Value& value = settings.all().at(setting.name);
  if (value.from == stage::Value::From::Default) return false;
  if (value.is_auto) return setting.fallback != "auto";
  if (!setting.fallback) return true;
  stage::Settings standard, held;  // the written value may be the default, spelled out
  standard.set(setting.name, stage::parse_value(setting, *setting.fallback));
  held.set(setting.name, value);
  return to_json(standard) != to_json(held);
}

Json with_json(const StageEntry& entry, const Recipe& recipe, const fs::path& folder) {
  Json all = to_json(entry.settings), out = Json::object();
  for (const Setting& setting : entry.info->settings) {
    if (!worth_writing(setting, entry.settings)) continue;
    Json value = entry.settings.is_auto(setting.name) ? Json("auto") : all[setting.name];
    if ((setting.type == Type::Path || setting.type == Type::Model) && value.is_string())
      value = short_path(value.get<std::string>(), folder);
    const auto data = entry.data.find(setting.name);
    if (data != entry.data.end()) value = data_json(data->second, setting.name, folder, recipe.seed);
    out[setting.name] = std::move(value);
  }
  return out;
}

Json task_json(const EvalTask& task, const fs::path& folder) {
  Json out = {{task.kind, short_path(task.file.string(), folder)}};
  const auto add = [&](const char* key, std::int64_t standard) {
    if (task.settings.has(key) && task.settings.integer(key) != standard)
      out[key] = task.settings.integer(key);
  };
  if (task.kind == "ppl") {
    add("window", 512);
    add("windows", 64);
  } else if (task.kind == "classify") {
    add("per_class", 50);
  } else {
    add("first", 0);
  }
  if (task.name != task.file.stem().string()) out["name"] = task.name;
  return out;
}

std::string eval_text(const EvalSection& eval, const fs::path& folder) {
  const Json json = eval_json(eval, folder);
  std::string out = "eval:\n";
  for (const auto& [key, value] : json.items()) {
    if (key != "tasks") out += fmt::format("  {}: {}\n", key, flow(value));
  }
  out += "  tasks:\n";
  for (const Json& task : json["tasks"]) out += fmt::format("    - {}\n", flow(task));
  return out;
}

}  // namespace

Json eval_json(const EvalSection& eval, const fs::path& folder) {
  Json out = Json::object();
  if (!eval.every_stage) out["every_stage"] = false;
  if (eval.reference != "$model") out["reference"] = eval.reference.empty() ? "none" : short_path(eval.reference, folder);
  out["tasks"] = Json::array();
  for (const EvalTask& task : eval.tasks) out["tasks"].push_back(task_json(task, folder));
  return out;
}

Json gates_json(const std::vector<Gate>& gates) {
  Json out = Json::object();
  for (const Gate& gate : gates) {
    if (gate.least) out[gate.metric]["min"] = *gate.least;
    if (gate.most) out[gate.metric]["max"] = *gate.most;
  }
  return out;
}

std::string to_yaml(const Recipe& recipe, const fs::path& folder) {
  std::string out = fmt::format("slmc: {}\nname: {}\nmodel: {}\n", kRecipeVersion, scalar(recipe.name),
                                scalar(short_path(recipe.model, folder)));
  if (!recipe.data.empty()) out += "data:\n";
  for (const auto& [name, section] : recipe.data)
    out += fmt::format("  {}: {}\n", scalar(name), flow(data_json(section, name, folder, recipe.seed)));
  out += "stages:\n";
  for (const StageEntry& entry : recipe.stages) {
    Json line = {{"id", entry.id}, {"use", entry.use}};
    const Json with = with_json(entry, recipe, folder);
    if (!with.empty()) line["with"] = with;
    out += fmt::format("  - {}\n", flow(line));
  }
  if (recipe.eval) out += eval_text(*recipe.eval, folder);
  if (!recipe.gates.empty()) out += fmt::format("gates: {}\n", flow(gates_json(recipe.gates)));
  if (!recipe.report.empty())
    out += fmt::format("report: {}\n", scalar(short_path(recipe.report.string(), folder)));
  if (recipe.seed != 0) out += fmt::format("seed: {}\n", recipe.seed);
  if (!recipe.device.empty()) out += fmt::format("device: {}\n", scalar(recipe.device));
  return out;
}

std::string starter_recipe(const std::string& model) {
  return fmt::format(
      "# What this makes, and for whom.\n"
      "# Check: slmc plan THIS-FILE          Run: slmc run THIS-FILE\n"
      "slmc: 1\n"
      "model: {}\n"
      "data:\n"
      "  calib: {{files: [calib.jsonl], samples: 128, seq: 512}}\n"
      "  train: {{files: [train.jsonl], seq: 512}}\n"
      "stages:\n"
      "  - {{id: depth, use: drop, with: {{layers: 2}}}}\n"
      "  - {{id: heal, use: distill, with: {{teacher: $model, tokens: 200k}}}}\n"
      "  - {{id: int4, use: quantize, with: {{method: gptq, to: gguf, type: q4_0}}}}\n"
      "eval:\n"
      "  reference: $model\n"
      "  tasks: [{{ppl: test.txt, window: 512, windows: 64}}]\n"
      "gates: {{ppl_ratio: {{max: 1.5}}}}\n"
      "report: report.html\n",
      scalar(model));
}

}  // namespace slmc::recipe
