// stages: [{id, use, with}]: ids, references to earlier artefacts, needs.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

#include "recipe/decode.h"
#include "stage/beside.h"

namespace slmc::recipe {
using stage::Setting;
using stage::Type;
using stage::Value;

namespace {

const std::vector<std::string>& entry_keys() {
  static const std::vector<std::string> names = {"id", "use", "with"};
  return names;
}

std::string scalar(const Node& map, const char* key, const std::string& what, Problems& problems) {
  const Node* node = read_kind(map, key, Node::Kind::Scalar,
                               fmt::format("the key '{}' of a stage must be {}", key, what), problems);
  if (node == nullptr) {
    if (!map.find(key))
      problems.push_back({fmt::format("a stage must have '{}', {}, but has not", key, what), map.place, {}});
    return {};
  }
  if (node->text.empty())
    problems.push_back(
        {fmt::format("the key '{}' of a stage must be {}, but is empty", key, what), node->place, {}});
  return node->text;
}

void check_id(const StageEntry& entry, const std::vector<StageEntry>& before, const Place& place,
              Problems& problems) {
  const auto allowed = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_';
  };
  if (entry.id.size() > 40 || !std::all_of(entry.id.begin(), entry.id.end(), allowed)) {
    problems.push_back(
        {fmt::format("the id of a stage must be at most 40 letters, digits, - and _, but is '{}'", entry.id),
         place,
         {}});
  }
  const auto& keys = top_level_keys();
  if (std::find(keys.begin(), keys.end(), entry.id) != keys.end()) {
    problems.push_back(
        {fmt::format("the id of a stage must not be a key of the recipe, but is '{}'", entry.id), place, {}});
  }
  if (std::any_of(before.begin(), before.end(), [&](const StageEntry& s) { return s.id == entry.id; })) {
    problems.push_back(
        {fmt::format("the id of a stage must be its own, but '{}' is taken", entry.id), place, {}});
  }
}

// Paths become absolute, references are checked, inline data sections decoded.
void finish_settings(StageEntry& entry, const Node* with, const Recipe& so_far,
                     const std::vector<StageEntry>& before, const DecodeContext& context) {
  for (const Setting& setting : entry.info->settings) {
    if (!entry.settings.has(setting.name) || entry.settings.is_auto(setting.name)) continue;
    Value value = entry.settings.all().at(setting.name);
    const Node* node = with ? with->find(setting.name) : nullptr;
    const Place place = node ? node->place : entry.place;
    if (setting.type == Type::Path) {
      value.value = absolute_path(entry.settings.text(setting.name), context.folder).string();
    } else if (setting.type == Type::Model) {
      const std::string model = absolute_model(entry.settings.text(setting.name), context.folder);
      check_reference(model, before, place, fmt::format("the setting '{}'", setting.name), context.problems);
      value.value = model;
    } else if (setting.type == Type::Data) {
      const Json& data = entry.settings.data(setting.name);
      if (data.is_string()) {
        const auto name = data.get<std::string>();
        std::vector<std::string> names;
        for (const auto& [key, section] : so_far.data) names.push_back(key);
        if (!so_far.data.contains(name)) {
          context.problems.push_back(
              {fmt::format("the setting '{}' must name a section of data, but '{}' is none", setting.name,
                           name),
               place, suggestion(name, names)});
        }
      } else if (node) {
        entry.data[setting.name] = decode_data(*node, setting.name, so_far.seed, context);
        value.value = entry.data[setting.name].spec;
      }
    }
    entry.settings.set(setting.name, std::move(value));
  }
}

// A setting that nothing would read is a mistake: bits beside to: gguf, damping beside method: rtn, a criterion without a width.
void check_only(const StageEntry& entry, const DecodeContext& context) {
  for (const Setting& setting : entry.info->settings) {
    if (!entry.settings.has(setting.name) || stage::means_something(setting, entry.settings)) continue;
    const Value::From from = entry.settings.all().at(setting.name).from;
    if (from != Value::From::Recipe && from != Value::From::Flag) continue;
    const auto place = entry.places.find(setting.name);
    std::string message = fmt::format("the setting '{}' must stand beside {}", setting.name, fmt::join(stage::settings_beside(setting), " or "));
    if (setting.only_values.empty())
      message += ", but does not";
    else
      message += fmt::format(": {}, but {} is {}", fmt::join(setting.only_values, " or "), setting.only_beside, entry.settings.text(setting.only_beside));
    context.problems.push_back({message, place == entry.places.end() ? entry.place : place->second, fmt::format("leave '{}' out", setting.name)});
  }
}

void check_needs(const StageEntry& entry, const Recipe& so_far, const DecodeContext& context) {
  const stage::Needs needs = stage::needs_of(*entry.info, entry.settings);
  const auto missing = [&](const std::string& what, const char* flag, const char* key) {
    context.problems.push_back(
        {fmt::format("the stage '{}' ({}) must have {}, but has none", entry.id, entry.use, what),
         entry.place, fmt::format("add {}", context.flags ? flag : key)});
  };
  const auto has_data = [&](const char* name) {
    return so_far.data.contains(name) || entry.settings.has(name);
  };
  if (needs.calib && !has_data("calib"))
    missing("calibration data", "--calib FILE", "data: {calib: {files: [...], samples: 128, seq: 512}}");
  if (needs.train && !has_data("train"))
    missing("training data", "--train FILE", "data: {train: {files: [...], seq: 512}}");
  if (needs.teacher && !entry.settings.has("teacher")) missing("a teacher", "--teacher MODEL", "teacher: $model");
}

StageEntry decode_stage(const Node& map, const Recipe& so_far, const std::vector<StageEntry>& before,
                        const DecodeContext& context) {
  StageEntry entry;
  entry.place = map.place;
  for (const auto& [key, value, key_place] : map.entries) {
    if (std::find(entry_keys().begin(), entry_keys().end(), key) == entry_keys().end()) {
      context.problems.push_back({fmt::format("unknown key '{}' in a stage", key), key_place,
                                  suggestion(key, entry_keys()).empty() ? "settings stand under 'with'"
                                                                        : suggestion(key, entry_keys())});
    }
  }
  entry.id = scalar(map, "id", "a short name of its own", context.problems);
  entry.use = scalar(map, "use", "the kind of stage", context.problems);
  if (!entry.id.empty()) {
    entry.place = map.find("id")->place;
    check_id(entry, before, entry.place, context.problems);
  }
  entry.info = context.registry.find(entry.use);
  if (entry.info == nullptr) {
    if (!entry.use.empty()) {
      const std::vector<std::string> names = context.registry.names();
      const std::string guess = suggestion(entry.use, names);
      context.problems.push_back({fmt::format("the stage '{}' must use one of {}, but uses '{}'", entry.id,
                                              fmt::join(names, ", "), entry.use),
                                  map.find("use")->place, guess});
    }
    return entry;
  }
  const Node* with = read_kind(map, "with", Node::Kind::Map,
                               "the key 'with' of a stage must be a group of settings", context.problems);
  Node empty;
  empty.kind = Node::Kind::Map;
  empty.place = entry.place;
  const std::size_t problems_before = context.problems.size();
  entry.settings = read_group(with ? *with : empty, entry.info->settings, {},
                              fmt::format("in stage '{}' ({})", entry.id, entry.use), context.problems);
  if (with) {
    for (const auto& [key, value, key_place] : with->entries) entry.places[key] = value.place;
  }
  finish_settings(entry, with, so_far, before, context);
  if (context.problems.size() == problems_before) check_only(entry, context);
  if (context.problems.size() == problems_before)
    check_needs(entry, so_far, context);  // a wrong method has no needs to check
  return entry;
}

}  // namespace

void check_reference(const std::string& model, const std::vector<StageEntry>& stages, const Place& place,
                     const std::string& what, Problems& problems) {
  if (!model.starts_with("$") || model == "$model") return;
  const std::string id = model.substr(1);
  if (std::any_of(stages.begin(), stages.end(), [&](const StageEntry& s) { return s.id == id; })) return;
  std::vector<std::string> names = {"$model"};
  for (const StageEntry& s : stages) names.push_back("$" + s.id);
  problems.push_back(
      {fmt::format("{} must name $model or an earlier stage, but '{}' is neither", what, model), place,
       suggestion(model, names)});
}

std::vector<StageEntry> decode_stages(const Node& list, const Recipe& so_far, const DecodeContext& context) {
  std::vector<StageEntry> out;
  for (const Node& item : list.items) {
    if (item.kind != Node::Kind::Map) {
      context.problems.push_back(
          {"a stage must be a group with 'id', 'use' and 'with', but is not", item.place, {}});
      continue;
    }
    out.push_back(decode_stage(item, so_far, out, context));
  }
  return out;
}

}  // namespace slmc::recipe
