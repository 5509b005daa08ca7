#include "recipe/resolve.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "core/file.h"
#include "core/hash.h"
#include "core/rng.h"
#include "core/units.h"
#include "ir/cost.h"
#include "ir/model.h"
#include "ir/template.h"
#include "ir/tokens.h"
#include "recipe/keys.h"
#include "recipe/store.h"
#include "recipe/walk.h"

namespace slmc::recipe {
namespace fs = std::filesystem;
using stage::Type;

namespace {

// Problems remember whose fault they are; a mixture is the recipe's.
struct Found {
  Problems problems;
  std::set<ErrorKind> kinds;
  void add(ErrorKind kind, Diagnostic problem) {
    problems.push_back(std::move(problem));
    kinds.insert(kind);
  }
  void raise(const std::string& text) {
    throw_problems(std::move(problems), text, kinds.size() == 1 ? *kinds.begin() : ErrorKind::Recipe);
  }
};

Place place_of(const StageEntry& entry, const std::string& setting) {
  const auto it = entry.places.find(setting);
  return it == entry.places.end() ? entry.place : it->second;
}

std::string sibling_hint(const fs::path& path) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (fs::directory_iterator it(path.parent_path(), ignored), end; !ignored && it != end;
       it.increment(ignored))
    names.push_back(it->path().filename().string());
  const std::string name = closest(path.filename().string(), names);
  return name.empty() ? "" : fmt::format("did you mean '{}'?", (path.parent_path() / name).string());
}

void require_file(const fs::path& path, const Place& place, const std::string& what, Found& found) {
  std::error_code ignored;
  if (fs::is_regular_file(path, ignored)) return;
  if (fs::exists(path, ignored)) {
    found.add(ErrorKind::Data,
              {fmt::format("{} must be a regular file, but '{}' is {}", what, path.string(), fs::is_directory(path, ignored) ? "a folder" : "a device, pipe or socket"),
               place, {}});
  } else {
    found.add(ErrorKind::Data, {fmt::format("{} must exist, but '{}' does not", what, path.string()), place,
                                sibling_hint(path)});
  }
}

// The path of a model that no stage makes; "" with a problem when there is none.
std::string require_model(const std::string& where, const Place& place, const std::string& what,
                          const Environment& environment, Found& found) {
  try {
    const std::string path = find_model(where, environment.hf_cache);
    if (fs::exists(path)) return path;
    found.add(ErrorKind::Model,
              {fmt::format("{} must exist, but '{}' does not", what, path), place, sibling_hint(path)});
  } catch (const Error& error) {
    found.add(error.kind(), {error.message(), place, error.diagnostics().front().hint});
  }
  return {};
}

// Sections that a stage reads: what it needs, and what its settings name.
std::map<std::string, const DataSection*> data_of(const Recipe& recipe, const StageEntry& entry) {
  std::map<std::string, const DataSection*> out;
  const stage::Needs needs = stage::needs_of(*entry.info, entry.settings);
  if (needs.calib && recipe.data.contains("calib")) out["calib"] = &recipe.data.at("calib");
  if (needs.train && recipe.data.contains("train")) out["train"] = &recipe.data.at("train");
  for (const stage::Setting& s : entry.info->settings) {
    if (s.type != Type::Data || !entry.settings.has(s.name)) continue;
    const auto inline_data = entry.data.find(s.name);
    out[s.name] = inline_data != entry.data.end()
                      ? &inline_data->second
                      : &recipe.data.at(entry.settings.data(s.name).get<std::string>());
  }
  return out;
}

void check_files(const Recipe& recipe, Found& found) {
  std::set<const DataSection*> used;
  for (const StageEntry& entry : recipe.stages) {
    for (const auto& [name, section] : data_of(recipe, entry)) used.insert(section);
    for (const stage::Setting& s : entry.info->settings) {
      if (s.type != Type::Path || !entry.settings.has(s.name) || entry.settings.is_auto(s.name)) continue;
      require_file(entry.settings.text(s.name), place_of(entry, s.name),
                   fmt::format("the file of '{}'", s.name), found);
    }
  }
  for (const DataSection* section : used) {
    for (const DataFile& file : section->files) require_file(file.path, file.place, "the file", found);
  }
  if (!recipe.eval) return;
  for (const EvalTask& task : recipe.eval->tasks) require_file(task.file, task.place, "the file", found);
}

void warn_of_unused_data(Chain& chain) {
  std::set<const DataSection*> used;
  for (const StageForecast& stage : chain.stages) {
    for (const auto& [name, section] : stage.data) used.insert(section);
  }
  for (const auto& [name, section] : chain.recipe.data) {
    if (!used.contains(&section))
      chain.warnings.push_back(fmt::format("the data '{}' is used by no stage", name));
  }
}

ModelInput input_of(const Chain& chain, const std::string& where, const Place& place, const std::string& what,
                    Found& found) {
  ModelInput out;
  out.source = where;
  if (where.starts_with("$")) {
    out.id = where.substr(1);
    if (out.id == "model") out.path = chain.model_path;
    if (out.id == "model") out.source = chain.recipe.model;
  } else {
    out.path = require_model(where, place, what, chain.environment, found);
  }
  return out;
}

// Everything a stage reads besides data: what it changes, and its settings of type Model.
std::map<std::string, ModelInput> inputs_of(const Chain& chain, std::size_t i, Found& found) {
  const StageEntry& entry = chain.recipe.stages[i];
  std::map<std::string, ModelInput> out;
  out["model"] = input_of(chain, i == 0 ? "$model" : "$" + chain.recipe.stages[i - 1].id, entry.place,
                          "the model", found);
  for (const stage::Setting& s : entry.info->settings) {
    if (s.type != Type::Model || !entry.settings.has(s.name) || entry.settings.is_auto(s.name)) continue;
    out[s.name] = input_of(chain, entry.settings.text(s.name), place_of(entry, s.name),
                           fmt::format("the model of '{}'", s.name), found);
  }
  return out;
}

// Models from outside are hashed once each.
class ModelKeys {
 public:
  explicit ModelKeys(const Chain& chain) : chain_(chain) {}
  std::string of(const ModelInput& input) {
    if (input.id == "model") return chain_.model_key;
    for (const StageForecast& stage : chain_.stages) {
      if (stage.out.id == input.id) return stage.key;
    }
    std::string& key = outside_[input.path];
    if (key.empty()) key = model_key(input.path);
    return key;
  }

 private:
  const Chain& chain_;
  std::map<std::string, std::string> outside_;
};

KeyInputs key_inputs(const Chain& chain, std::size_t i, const StageForecast& forecast) {
  const StageEntry& entry = chain.recipe.stages[i];
  KeyInputs out;
  out.op = entry.use;
  out.method_folder = entry.info->folder;
  out.seed = derive_seed(chain.recipe.seed, entry.id);
  out.trains = entry.info->trains;
  out.threads = chain.environment.threads;
  out.ranks = chain.environment.ranks;
  out.source = source_hash(entry.info->folder);
  for (const auto& [name, input] : forecast.models) out.arch[input.family] = input.arch;
  out.arch[forecast.out.family] = forecast.out.arch;
  if (entry.info->needs.engine) out.facts = *chain.environment.facts;
  for (const auto& [name, input] : forecast.models) out.models[name] = input.key;
  for (const auto& [name, section] : forecast.data) out.data[name] = data_key(*section);
  Json settings = to_json(entry.settings);
  for (const stage::Setting& s : entry.info->settings) {
    if (s.type == Type::Path && entry.settings.has(s.name) && !entry.settings.is_auto(s.name))
      out.files[s.name] = sha256_file(entry.settings.text(s.name));
    if (s.type == Type::Path || s.type == Type::Model || s.type == Type::Data) settings.erase(s.name);
  }
  out.settings = std::make_shared<const Json>(std::move(settings));
  return out;
}

// In what two manifests' inputs differ, the first three; "" when in nothing that has a name.
std::string difference(const Json& old, const Json& now) {
  constexpr std::size_t kShown = 3;
  std::vector<std::string> found;
  for (const char* group : {"settings", "models", "data", "files", "arch", "engine"}) {
    const Json& a = old.value(group, Json::object());
    for (const auto& [name, value] : now[group].items()) {
      if (a.is_object() && a.contains(name) && a[name] == value) continue;
      const bool shown = std::string_view(group) == "settings" || std::string_view(group) == "engine";
      const std::string was = a.is_object() && a.contains(name) ? dump_compact(a[name]) : "unset";
      if (shown) {
        found.push_back(fmt::format("'{}' was {}", name, was));
      } else {
        static const std::map<std::string_view, std::string> kinds = {
            {"models", "model"}, {"data", "data"}, {"files", "file"}, {"arch", "template"}};
        const std::string& kind = kinds.at(group);
        found.push_back(kind == name ? "its input was another" : fmt::format("the {} '{}' was another", kind, name));
      }
    }
  }
  for (const char* name : {"seed", "threads", "ranks"}) {
    if (now.contains(name) && old.value(name, Json()) != now[name])
      found.push_back(fmt::format("'{}' was {}", name, dump_compact(old.value(name, Json()))));
  }
  if (old.value("source", "") != now.value("source", "")) found.push_back("slmc was another");
  if (found.size() > kShown) found.resize(kShown);
  return fmt::format("{}", fmt::join(found, ", "));
}

// Why a stage has no result with this key: what the newest result of the same stage of the same recipe was made from. Other recipes may
// share the folder, with stages of the same name that are none of this one's past.
std::string explain(const Chain& chain, std::size_t i, const StageForecast& forecast) {
  const std::string prefix = fmt::format("{:02}-{}-", i + 1, forecast.out.id);
  Json newest;
  fs::file_time_type when{};
  bool damaged = false;
  std::error_code ignored;
  for (fs::directory_iterator it(chain.environment.work, ignored), end; !ignored && it != end; it.increment(ignored)) {
    const fs::path file = it->path() / "manifest.json";
    if (!it->path().filename().string().starts_with(prefix) || !fs::exists(file)) continue;
    damaged |= it->path() == forecast.folder;
    try {
      Json manifest = read_json(file, ErrorKind::Model);
      if (!manifest.is_object() || manifest.value("recipe", "") != chain.recipe.name || !manifest.value("inputs", Json()).is_object()) continue;
      if (!newest.is_null() && fs::last_write_time(file) <= when) continue;
      when = fs::last_write_time(file);
      newest = std::move(manifest);
    } catch (const Error&) {  // broken: nothing can be said about it
    } catch (const Json::exception&) {
    }
  }
  if (damaged) return "the last result is damaged";
  if (newest.is_null()) return "no result yet";
  const std::string what = difference(newest["inputs"], *forecast.inputs);
  return what.empty() ? "the last result was made from other inputs" : "for the last result, " + what;
}

void add_keys(Chain& chain, std::size_t i, ModelKeys& keys) {
  StageForecast& forecast = chain.stages[i];
  for (auto& [name, input] : forecast.models) input.key = keys.of(input);
  const KeyInputs inputs = key_inputs(chain, i, forecast);
  forecast.inputs = std::make_shared<const Json>(to_json(inputs));
  forecast.key = key_of(inputs);
  forecast.folder = stage_folder(chain.environment.work, i + 1, forecast.out.id, forecast.key);
  const std::optional<Json> manifest = read_manifest(forecast.folder, forecast.key);
  forecast.reused = manifest && artefact_is_whole(forecast.folder, *manifest, false);
  if (!forecast.reused) forecast.why = explain(chain, i, forecast);
}

// A folder with a config and without weights, for a first stage that draws them.
bool is_blank(const Chain& chain) {
  const StageEntry& first = chain.recipe.stages.front();
  if (!stage::needs_of(*first.info, first.settings).drawn || !fs::exists(fs::path(chain.model_path) / "config.json"))
    return false;
  for (const auto& entry : fs::directory_iterator(chain.model_path)) {
    if (entry.path().extension() == ".safetensors") return false;
  }
  return true;
}

// Nothing can be compared with, or taught by, a model without weights.
void refuse_blank(const Chain& chain, Found& found) {
  const auto refuse = [&](const std::string& what, const Place& place, const char* hint) {
    found.add(ErrorKind::Recipe, {fmt::format("{} must have weights, but '$model' is a config only", what), place, hint});
  };
  if (chain.reference && chain.reference->id == "model")
    refuse("the reference", chain.recipe.eval->place, "write reference: none, or name a stage");
  for (std::size_t i = 0; i < chain.stages.size(); ++i) {
    for (const auto& [setting, input] : chain.stages[i].models) {
      if (setting == "model" || input.id != "model") continue;
      refuse(fmt::format("the model of '{}'", setting), place_of(chain.recipe.stages[i], setting), "");
    }
  }
}

ir::Model load_input(const Chain& chain, Found& found) {
  try {
    const ir::LoadOptions options{chain.environment.hf_cache, chain.environment.templates};
    const auto no_weights = [](const ir::TensorSpec& spec, std::int64_t) -> io::TensorData {
      throw Error(ErrorKind::Internal, fmt::format("'{}' has no weights yet", spec.name));
    };
    return chain.input.blank ? ir::from_config(chain.model_path, no_weights, options) : ir::load(chain.model_path, options);
  } catch (const Error& error) {
    if (found.problems.empty()) throw;
    for (const Diagnostic& d : error.diagnostics()) found.add(error.kind(), d);
    found.raise(chain.recipe.text);
    throw;
  }
}

void warn_of_quantized_input(const ir::Model& input, Chain& chain) {
  std::set<std::string> types;
  for (const ir::TensorSpec& t : input.tensors()) {
    const bool plain = t.stored_dtype.empty() || std::isupper(static_cast<unsigned char>(t.stored_dtype[0]));
    if (!t.derived && t.shape.size() == 2 && !plain) types.insert(t.stored_dtype);
  }
  if (types.empty()) return;
  chain.warnings.push_back(fmt::format("the model holds quantized weights ({}); stages work on their dequantized values",
                                       fmt::join(types, ", ")));
}

// The models of a chain as stages read them, shapes only: its own as the walk leaves them, those from outside opened once each.
class Readable {
 public:
  explicit Readable(const Environment& environment) : options_{environment.hf_cache, environment.templates} {}
  void add(const std::string& id, const ir::Model& model) { own_.insert_or_assign(id, model); }
  // Fills the input's template. Null, with a problem, when it can't be opened.
  const ir::Model* open(ModelInput& input, const Place& place, Found& found) {
    const ir::Model* model = find(input, place, found);
    if (model) input.family = model->family();
    if (model) input.arch = model->arch().hash;
    return model;
  }

 private:
  const ir::Model* find(const ModelInput& input, const Place& place, Found& found) {
    auto& models = input.id.empty() ? outside_ : own_;
    const std::string& name = input.id.empty() ? input.path : input.id;
    if (const auto it = models.find(name); it != models.end()) return &it->second;
    if (!input.id.empty() || input.path.empty()) return nullptr;     // a problem that was told already
    try {
      return &models.emplace(name, ir::load(input.path, options_)).first->second;
    } catch (const Error& error) {
      for (const Diagnostic& d : error.diagnostics()) found.add(error.kind(), {d.message, d.place.file.empty() ? place : d.place, d.hint});
    }
    return nullptr;
  }

  ir::LoadOptions options_;
  std::map<std::string, ir::Model> own_, outside_;
};

// The model that stage `i` learns from; null when it has none. Judged here, since training would judge it hours later.
const ir::Model* open_models(Chain& chain, std::size_t i, const ir::Model& student, Readable& models, Found& found) {
  const StageEntry& entry = chain.recipe.stages[i];
  const bool teaches = stage::needs_of(*entry.info, entry.settings).teacher;
  const ir::Model* teacher = nullptr;
  for (auto& [setting, input] : chain.stages[i].models) {
    const ir::Model* model = models.open(input, place_of(entry, setting), found);
    if (!teaches || setting == "model" || !model) continue;
    teacher = model;
    if (!student.tokenizer() || !teacher->tokenizer()) continue;
    try {
      ir::require_same_tokens(student, *teacher);
    } catch (const Error& error) {
      found.add(ErrorKind::Recipe, {error.message(), place_of(entry, setting), error.diagnostics().front().hint});
    }
  }
  return teacher;
}

constexpr std::int64_t kUsualSeq = 512;      // of a data section that does not say

// Windows that are longer than a model was made for: positions without an embedding, or beyond what it has learnt.
class WindowCheck {
 public:
  WindowCheck(Found& found) : found_(found) {}
  void data(const DataSection& section, const std::string& name, const ir::Model& model, const std::string& id) {
    const std::int64_t seq = section.spec->value("seq", kUsualSeq), context = model.decoder().context;
    if (context <= 0 || seq <= context || !told_.insert(&section).second) return;
    refuse(fmt::format("the window of the data '{}' (seq)", name), seq, context, id, section.place, "seq");
  }
  void task(const EvalTask& task, const ir::Model& model, const std::string& id) {
    if (task.kind != "ppl") return;
    const std::int64_t window = task.settings.integer("window"), context = model.decoder().context;
    if (context <= 0 || window <= context || !told_.insert(&task).second) return;
    refuse(fmt::format("the window of the task '{}'", task.name), window, context, id, task.place, "window");
  }

 private:
  void refuse(const std::string& what, std::int64_t value, std::int64_t context, const std::string& id, const Place& place, const char* key) {
    found_.add(ErrorKind::Recipe, {fmt::format("{} must be at most {} tokens, the context of '{}', but is {}", what, context, id, value), place,
                                   fmt::format("{}: {} is the most", key, context)});
  }
  Found& found_;
  std::set<const void*> told_;
};

void walk_chain(const ir::Model& input, Chain& chain, Found& found) {
  Walk walk = start_walk(input);
  const bool blank = chain.input.blank;
  chain.input = walk.at;
  chain.input.blank = blank;
  chain.input.bytes = blank ? 0 : ir::file_bytes(chain.model_path);
  Readable models(chain.environment);
  models.add("model", input);
  WindowCheck windows(found);
  for (std::size_t i = 0; i < chain.recipe.stages.size(); ++i) {
    StageForecast& forecast = chain.stages[i];
    const ir::Model* teacher = open_models(chain, i, walk.model, models, found);
    for (const auto& [name, section] : forecast.data) {
      windows.data(*section, name, walk.model, walk.at.id);
      if (teacher) windows.data(*section, name, *teacher, "the teacher");
    }
    predict(walk, chain.recipe.stages[i], chain.recipe, teacher, chain.environment.threads, forecast);
    Problems problems;
    forecast.out = walk_stage(walk, chain.recipe, i, forecast.assumed, problems);
    for (Diagnostic& d : problems) found.add(ErrorKind::Recipe, std::move(d));
    models.add(forecast.out.id, walk.model);
  }
  const ir::Model* reference = chain.reference ? models.open(*chain.reference, chain.recipe.eval->place, found) : nullptr;
  if (!chain.recipe.eval) return;
  for (const EvalTask& task : chain.recipe.eval->tasks) {
    windows.task(task, input, "model");
    if (reference) windows.task(task, *reference, "the reference");
  }
}

Chain resolve_all(Recipe recipe, const Environment& environment) {
  Found found;
  Chain chain;
  chain.recipe = std::move(recipe);
  chain.environment = environment;
  chain.model_path =
      require_model(chain.recipe.model, chain.recipe.model_place, "the model", environment, found);
  check_files(chain.recipe, found);
  chain.stages.resize(chain.recipe.stages.size());
  for (std::size_t i = 0; i < chain.stages.size(); ++i) {
    chain.stages[i].out.id = chain.recipe.stages[i].id;
    chain.stages[i].data = data_of(chain.recipe, chain.recipe.stages[i]);
    chain.stages[i].models = inputs_of(chain, i, found);
  }
  if (chain.recipe.eval && !chain.recipe.eval->reference.empty()) {
    chain.reference =
        input_of(chain, chain.recipe.eval->reference, chain.recipe.eval->place, "the reference", found);
  }
  if (chain.model_path.empty()) found.raise(chain.recipe.text);
  chain.input.blank = is_blank(chain);
  if (chain.input.blank) refuse_blank(chain, found);
  const ir::Model input = load_input(chain, found);
  walk_chain(input, chain, found);
  found.raise(chain.recipe.text);
  warn_of_unused_data(chain);
  warn_of_quantized_input(input, chain);
  if (!environment.facts) return chain;
  chain.model_key = model_key(chain.model_path);
  ModelKeys keys(chain);
  for (std::size_t i = 0; i < chain.stages.size(); ++i) add_keys(chain, i, keys);
  if (chain.reference) chain.reference->key = keys.of(*chain.reference);
  keep_first(chain, chain.stages.size());
  return chain;
}

Json artefact_json(const Artefact& a) {
  Json out = {{"id", a.id},
              {"container", a.container},
              {"parameters", a.parameters},
              {"bytes", a.bytes},
              {"kv_bytes_per_token", a.kv_bytes_per_token},
              {"exact", a.exact}};
  out["sizes"] = a.sizes ? *a.sizes : Json::object();
  out["cannot"] = Json::object();
  for (const auto& [container, why] : a.cannot) out["cannot"][container] = why;
  return out;
}

// Each setting with where its value comes from.
Json settings_json(const StageEntry& entry) {
  Json out = Json::object();
  const Json values = to_json(entry.settings);
  for (const auto& [name, value] : values.items()) {
    const stage::Value& held = entry.settings.all().at(name);
    const char* from = held.is_auto || held.from == stage::Value::From::Auto ? "auto"
                       : held.from == stage::Value::From::Recipe             ? "recipe"
                       : held.from == stage::Value::From::Flag               ? "flag"
                                                                             : "default";
    out[name] = {{"value", value}, {"from", from}};
  }
  return out;
}

}  // namespace

std::string find_model(const std::string& where, const fs::path& hf_cache) {
  if (!where.starts_with("hf:")) return where;
  return ir::find_model(where, {hf_cache, {}}).string();
}

void keep_first(Chain& chain, std::size_t stages) {
  chain.stages.resize(stages);
  chain.recipe.stages.resize(stages);
  chain.disk_bytes = 0;
  if (!chain.environment.facts) return;
  for (const StageForecast& stage : chain.stages) {
    if (!stage.reused) chain.disk_bytes += static_cast<std::uint64_t>(stage.out.bytes);
  }
}

Chain resolve(Recipe recipe, const Environment& environment) {
  try {
    return resolve_all(std::move(recipe), environment);
  } catch (const fs::filesystem_error& error) {
    throw Error(ErrorKind::Resource, Place{error.path1().string(), 0, 0, 1, {}},
                fmt::format("the files must be readable, but are not: {}", error.code().message()));
  }
}

Json to_json(const Chain& chain) {
  Json out = {
      {"name", chain.recipe.name}, {"model", chain.model_path}, {"input", artefact_json(chain.input)}};
  out["stages"] = Json::array();
  for (std::size_t i = 0; i < chain.stages.size(); ++i) {
    const StageForecast& stage = chain.stages[i];
    Json entry = {{"id", stage.out.id},
                  {"use", chain.recipe.stages[i].use},
                  {"settings", settings_json(chain.recipe.stages[i])},
                  {"result", artefact_json(stage.out)}};
    entry["key"] = stage.key;
    entry["folder"] = stage.folder.string();
    entry["reused"] = stage.reused;
    entry["why"] = stage.why;
    entry["peak_bytes"] = stage.peak_bytes;
    entry["seconds"] = stage.seconds;
    entry["assumed"] = stage.assumed;
    out["stages"].push_back(std::move(entry));
  }
  out["disk_bytes"] = chain.disk_bytes;
  out["warnings"] = chain.warnings;
  return out;
}

}  // namespace slmc::recipe
