// A document's tree becomes a Recipe: the top level, and what its sections share.
#include "recipe/decode.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

#include "core/file.h"
#include "core/units.h"
#include "recipe/metrics.h"

namespace slmc::recipe {
namespace fs = std::filesystem;
using stage::Setting;
using stage::Type;

namespace {

const std::vector<std::string>& groups() {
  static const std::vector<std::string> names = {"slmc", "data", "stages", "eval", "gates", "sweep"};
  return names;
}

bool is_word(std::string_view text) {
  return !text.empty() && text.size() <= 64 && text.front() != '.' && text.front() != '-' &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.';
         });
}

bool is_device(std::string_view text) {
  if (text == "cpu" || text == "cuda") return true;
  if (!text.starts_with("cuda:") || text.size() > 8) return false;
  const std::string_view number = text.substr(5);
  return !number.empty() &&
         std::all_of(number.begin(), number.end(), [](char c) { return c >= '0' && c <= '9'; });
}

void check_version(const Node& root, Problems& problems) {
  const Node* version = root.find("slmc");
  if (version == nullptr) {
    problems.push_back({"a recipe must begin with 'slmc: 1', its version, but does not", root.place, {}});
  } else if (version->kind != Node::Kind::Scalar || version->text != std::to_string(kRecipeVersion)) {
    const bool newer =
        version->kind == Node::Kind::Scalar && parse_count(version->text).value_or(0) > kRecipeVersion;
    problems.push_back(
        {fmt::format("the version 'slmc' must be {}, but is {}", kRecipeVersion,
                     version->kind == Node::Kind::Scalar ? "'" + version->text + "'" : "something else"),
         version->place, newer ? "this recipe needs a newer slmc" : ""});
  }
}

std::string text_or(const stage::Settings& settings, const char* name, std::string fallback) {
  return settings.has(name) ? settings.text(name) : std::move(fallback);
}

void decode_scalars(const Node& root, const DecodeContext& context, Recipe& recipe) {
  const stage::Settings top = read_group(root, recipe_table(), groups(), "", context.problems);
  const auto place = [&](const char* key) { return root.find(key) ? root.find(key)->place : root.place; };
  recipe.name = text_or(top, "name", recipe.file.empty() ? "recipe" : fs::path(recipe.file).stem().string());
  if (!is_word(recipe.name) && top.has("name")) {
    context.problems.push_back(
        {fmt::format("the name must be of letters, digits and - _ . (at most 64), but is '{}'", recipe.name),
         place("name"),
         {}});
  }
  recipe.model_place = place("model");
  if (!root.find("model"))
    context.problems.push_back(
        {"a recipe must have 'model', a path or hf:org/name, but has none", root.place, {}});
  if (top.has("model")) {
    recipe.model = absolute_model(top.text("model"), context.folder);
    if (recipe.model.starts_with("$")) {
      context.problems.push_back(
          {fmt::format("the model must be a path or hf:org/name, but is '{}'", recipe.model),
           recipe.model_place,
           {}});
    }
  }
  recipe.seed = top.has("seed") ? static_cast<std::uint64_t>(top.integer("seed")) : 0;
  if (top.has("report")) recipe.report = absolute_path(top.text("report"), context.folder);
  recipe.device = text_or(top, "device", "");
  if (top.has("device") && !is_device(recipe.device)) {
    context.problems.push_back(
        {fmt::format("the device must be cpu, cuda or cuda:N, but is '{}'", recipe.device),
         place("device"),
         {}});
  }
}

}  // namespace

const std::vector<Setting>& recipe_table() {
  static const std::vector<Setting> table = {
      {.name = "name",
       .type = Type::Text,
       .help = "Letters, digits and - _ . ; the file's name unless given."},
      {.name = "model",
       .type = Type::Model,
       .help = "The model to begin with: a Hugging Face folder, a .gguf file, or hf:org/name in the local "
               "cache."},
      {.name = "report", .type = Type::Path, .help = "Where the HTML report goes."},
      {.name = "seed",
       .type = Type::Integer,
       .fallback = "0",
       .help = "Every random number follows from it.",
       .least = 0},
      {.name = "device",
       .type = Type::Text,
       .help = "cpu, cuda or cuda:N; the caller's choice unless given."},
  };
  return table;
}

const std::vector<std::string>& top_level_keys() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> out = groups();
    for (const Setting& s : recipe_table()) out.push_back(s.name);
    return out;
  }();
  return names;
}

std::string suggestion(std::string_view word, const std::vector<std::string>& candidates) {
  const std::string guess = closest(word, candidates);
  return guess.empty() ? "" : fmt::format("did you mean '{}'?", guess);
}

fs::path absolute_path(const fs::path& path, const fs::path& folder) {
  return fs::absolute(path.is_absolute() ? path : folder / path).lexically_normal();
}

std::string absolute_model(const std::string& model, const fs::path& folder) {
  if (model.starts_with("$") || model.starts_with("hf:")) return model;
  std::string out = absolute_path(model, folder).string();
  while (out.size() > 1 && out.back() == '/') out.pop_back();
  return out;
}

const Node* read_kind(const Node& map, std::string_view key, Node::Kind kind, const std::string& what,
                      Problems& problems) {
  const Node* node = map.find(key);
  if (node == nullptr || node->kind == kind) return node;
  const char* is = node->kind == Node::Kind::Null   ? "empty"
                   : node->kind == Node::Kind::List ? "a list"
                   : node->kind == Node::Kind::Map  ? "a group of keys"
                                                    : "text";
  problems.push_back({fmt::format("{}, but is {}", what, is),
                      node->kind == Node::Kind::Null ? map.key_place(key) : node->place,
                      {}});
  return nullptr;
}

stage::Settings read_group(const Node& map, const std::vector<Setting>& table,
                           const std::vector<std::string>& group_keys, const std::string& where,
                           Problems& problems) {
  std::vector<std::string> known = group_keys;
  for (const Setting& s : table) known.push_back(s.name);
  Json object = Json::object();
  for (const auto& [key, value, key_place] : map.entries) {
    const auto setting = std::find_if(table.begin(), table.end(),
                                      [&, &name = key](const Setting& s) { return s.name == name; });
    if (setting != table.end()) {
      object[key] = setting->type == Type::Data ? to_json(value) : to_json_texts(value);
    } else if (std::find(known.begin(), known.end(), key) == known.end()) {
      std::string hint = problems.size() < kMostProblems ? suggestion(key, known) : "";  // more are not shown
      if (hint.empty() && known.empty()) hint = "there is nothing to set here";
      problems.push_back({fmt::format("unknown key '{}'{}{}", key, where.empty() ? "" : " ", where),
                          key_place, std::move(hint)});
    }
  }
  const auto place_of = [&](std::string_view key) {
    const Node* value = key.empty() ? nullptr : map.find(key);
    if (value == nullptr) return map.place;
    return value->kind == Node::Kind::Null ? map.key_place(key) : value->place;
  };
  stage::Settings settings = stage::parse_settings(table, object, place_of, problems);
  for (const auto& [key, value, key_place] : map.entries) {
    const auto held = settings.all().find(key);
    if (!value.flag || held == settings.all().end()) continue;
    stage::Value flagged = held->second;
    flagged.from = stage::Value::From::Flag;
    settings.set(key, std::move(flagged));
  }
  return settings;
}

Recipe decode_tree(const Node& root, const std::string& text, const std::string& file,
                   const DecodeContext& context) {
  Recipe recipe;
  recipe.file = file;
  recipe.folder = context.folder;
  recipe.text = text;
  if (root.kind != Node::Kind::Map) {
    context.problems.push_back(
        {"a recipe must be a group of keys such as 'slmc: 1', but is not", root.place, {}});
    return recipe;
  }
  check_version(root, context.problems);
  decode_scalars(root, context, recipe);
  const auto group = [&](const char* key) {
    return read_kind(root, key, Node::Kind::Map, fmt::format("the key '{}' must be a group of keys", key),
                     context.problems);
  };
  if (const Node* data = group("data")) {
    for (const auto& [name, section, key_place] : data->entries)
      recipe.data[name] = decode_data(section, name, recipe.seed, context);
  }
  if (const Node* stages =
          read_kind(root, "stages", Node::Kind::List, "the key 'stages' must be a list", context.problems)) {
    recipe.stages = decode_stages(*stages, recipe, context);
  }
  if (root.find("stages") == nullptr ||
      (recipe.stages.empty() && root.find("stages")->kind == Node::Kind::List &&
       root.find("stages")->items.empty())) {
    context.problems.push_back({"a recipe must have at least one stage, but has none",
                                root.find("stages") ? root.find("stages")->place : root.place,
                                "write 'stages:' with a list of {id, use, with}"});
  }
  if (const Node* eval = group("eval")) recipe.eval = decode_eval(*eval, recipe, context);
  if (const Node* gates = group("gates")) recipe.gates = decode_gates(*gates, recipe, context);
  return recipe;
}

// The variants of a sweep share their mistakes.
void drop_repeated(Problems& problems) {
  std::set<std::tuple<std::string, std::string, int, int>> seen;
  std::erase_if(problems, [&](const Diagnostic& d) { return !seen.emplace(d.message, d.place.file, d.place.line, d.place.column).second; });
}

std::vector<Recipe> decode_all(std::string_view text, const std::string& file, const stage::Registry& registry,
                               const std::vector<std::string>& set) {
  Problems problems;
  Node root = parse_document(text, file, problems);
  throw_problems(problems, text);                       // a tree with holes would give problems that are none
  if (root.place.file.empty()) root.place.file = file;  // nothing but comments
  apply_overrides(root, set, problems);
  const fs::path folder = fs::absolute(file).parent_path();
  std::vector<Recipe> out;
  for (const Variant& variant : variants_of(root, problems)) {
    out.push_back(decode_tree(variant.tree, std::string(text), file, {registry, folder, problems}));
    out.back().variant = variant.values;
  }
  drop_repeated(problems);
  throw_problems(std::move(problems), text);
  return out;
}

Recipe decode(std::string_view text, const std::string& file, const stage::Registry& registry,
              const std::vector<std::string>& set) {
  std::vector<Recipe> all = decode_all(text, file, registry, set);
  if (all.size() == 1 && all.front().variant.empty()) return std::move(all.front());
  throw Error(ErrorKind::Recipe, Place{file, 0, 0, 1, {}}, "the recipe must be one chain here, but has a 'sweep'");
}

std::vector<Recipe> read_recipes(const fs::path& file, const stage::Registry& registry, const std::vector<std::string>& set) {
  std::string text;
  try {
    text = read_text(file, kMostBytes);
  } catch (const Error& error) {
    throw Error(ErrorKind::Recipe, error.diagnostics());
  }
  return decode_all(text, file.string(), registry, set);
}

}  // namespace slmc::recipe
