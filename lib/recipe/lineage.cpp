#include "recipe/lineage.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "io/gguf.h"
#include "recipe/decode.h"

namespace slmc::recipe {
namespace fs = std::filesystem;

namespace {

constexpr const char* kLineageKey = "slmc.lineage";

[[noreturn]] void refuse(const fs::path& file, const std::string& message, const std::string& hint = {}) {
  throw Error(ErrorKind::Model, Place{file.string(), 0, 0, 1, {}}, message, hint);
}

[[noreturn]] void cannot(const std::string& message, const std::string& hint) {
  throw Error(ErrorKind::Unsupported, message, hint);
}

std::string text_of(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
}

const Json& object_of(const Json& object, const char* key) {
  static const Json none = Json::object();
  const auto it = object.find(key);
  return it != object.end() && it->is_object() ? *it : none;
}

// Names of the artefacts as a recipe refers to them, by key.
using Names = std::map<std::string, std::string>;

Json with_of(const Json& entry, const Names& names) {
  Json with = object_of(entry, "settings");
  for (const auto& [setting, input] : object_of(entry, "inputs").items()) {
    if (setting == "model" || !with.contains(setting)) continue;
    const auto name = names.find(text_of(input, "key"));
    with[setting] = name != names.end() ? name->second : text_of(input, "source");
  }
  const auto automatic = entry.find("auto");
  if (automatic == entry.end()) return with;
  for (const Json& setting : *automatic) with[setting.get<std::string>()] = "auto";
  return with;
}

// Data sections of all entries. Stages take them by name, so one name must mean the same for all.
Json data_of(const Json& entries) {
  Json out = Json::object();
  for (const Json& entry : entries) {
    for (const auto& [name, data] : object_of(entry, "data").items()) {
      Json section = object_of(data, "spec");
      const Json& licences = object_of(data, "licences");
      if (licences.contains("")) section["licence"] = licences[""];
      if (section.contains("mix")) {
        for (auto& [domain, value] : section["mix"].items()) {
          if (licences.contains(domain)) value["licence"] = licences[domain];
        }
      }
      if (out.contains(name) && out[name] != section) {
        cannot(fmt::format("the stages must share the data '{}', but the stage '{}' was made with other data",
                           name, text_of(entry, "id")),
               "the model was made by several recipes; rebuild it in the steps that `slmc log` lists");
      }
      out[name] = section;
    }
  }
  return out;
}

}  // namespace

namespace {

Json embedded_lineage(const fs::path& model) {
  if (!fs::is_regular_file(model) || model.extension() != ".gguf") return Json::array();
  const io::GgufFile file = io::GgufFile::open(model);
  const io::GgufValue* value = file.find(kLineageKey);
  const std::string* text = value ? std::get_if<std::string>(&value->value) : nullptr;
  return text ? parse_json(*text, model.string() + " " + kLineageKey, ErrorKind::Model) : Json::array();
}

}  // namespace

fs::path lineage_path(const fs::path& model) {
  return fs::is_directory(model) ? model / "lineage.json" : fs::path(model.string() + ".lineage.json");
}

Json read_lineage(const fs::path& model) {
  const fs::path file = lineage_path(model);
  Json entries = fs::exists(file) ? read_json(file, ErrorKind::Model) : embedded_lineage(model);
  if (!entries.is_array()) refuse(file, "the lineage must be a list of stages, but is not");
  for (const Json& entry : entries) {
    if (!entry.is_object() || !entry.contains("slmc_lineage") || !entry["slmc_lineage"].is_number_integer()) {
      refuse(file, "each entry of the lineage must be an object with 'slmc_lineage', but one is not");
    }
    if (entry["slmc_lineage"].get<std::int64_t>() > kLineageVersion) {
      refuse(file,
             fmt::format("the lineage must be of version {} or older, but is of version {}", kLineageVersion,
                         entry["slmc_lineage"].get<std::int64_t>()),
             "read it with the newer slmc that wrote it");
    }
  }
  return entries;
}

void write_lineage(const fs::path& model, const Json& entries) { write_json(lineage_path(model), entries); }

void embed_lineage(const fs::path& gguf, const Json& entries) {
  Json kept = entries;
  for (Json& entry : kept) {
    for (const char* key : {"measured", "metrics", "eval", "reference", "gates"}) entry.erase(key);
  }
  const io::GgufFile file = io::GgufFile::open(gguf);
  io::GgufMetadata metadata = file.metadata();
  io::set(metadata, kLineageKey, io::GgufValue::text(dump_compact(kept)));
  std::vector<io::GgufWriter::Entry> tensors;
  for (const io::GgufTensor& t : file.tensors()) tensors.push_back({t.name, t.type, t.shape});
  io::GgufWriter writer(gguf, std::move(metadata), std::move(tensors));
  for (const io::GgufTensor& t : file.tensors()) writer.write(t.name, file.bytes(t));
  writer.finish();  // renames over the file that is still mapped; the map keeps the old bytes
}

namespace {

// How the newest entry was measured and judged. One that compares with a later stage's model, which these entries lack, is left out.
void add_eval(Json& root, const Json& entry, const Names& names) {
  if (!entry.contains("eval")) {
    if (entry.contains("gates")) root["gates"] = entry["gates"];      // sizes need no evaluation
    return;
  }
  Json eval = object_of(entry, "eval");
  if (const Json& reference = object_of(entry, "reference"); !reference.empty()) {
    const auto name = names.find(text_of(reference, "key"));
    const std::string source = text_of(reference, "source");
    if (name == names.end() && source.starts_with("$")) return;
    eval["reference"] = name != names.end() ? name->second : source;
  }
  root["eval"] = std::move(eval);
  if (entry.contains("gates")) root["gates"] = entry["gates"];
}

// The recipe as a tree that the decoder reads.
Json recipe_json(const Json& entries) {
  Json root = {{"slmc", kRecipeVersion}};
  const std::string name = text_of(object_of(entries.back(), "recipe"), "name");
  if (!name.empty()) root["name"] = name;
  root["model"] = text_of(object_of(object_of(entries.front(), "inputs"), "model"), "source");
  const Json seed = object_of(entries.front(), "recipe").value("seed", Json(0));
  root["seed"] = seed;
  root["data"] = data_of(entries);
  root["stages"] = Json::array();
  Names names = {{text_of(object_of(object_of(entries.front(), "inputs"), "model"), "key"), "$model"}};
  for (const Json& entry : entries) {
    if (object_of(entry, "recipe").value("seed", Json(0)) != seed) {
      cannot(fmt::format("the stages must share one seed, but the stage '{}' was made with another",
                         text_of(entry, "id")),
             "the model was made by several recipes; rebuild it in the steps that `slmc log` lists");
    }
    root["stages"].push_back(
        {{"id", text_of(entry, "id")}, {"use", text_of(entry, "stage")}, {"with", with_of(entry, names)}});
    names[text_of(entry, "key")] = "$" + text_of(entry, "id");
  }
  if (root["data"].empty()) root.erase("data");
  add_eval(root, entries.back(), names);
  return root;
}

}  // namespace

std::string recipe_from_lineage(const Json& entries, const stage::Registry& registry,
                                const fs::path& folder) {
  if (entries.empty())
    cannot("the model must have a lineage to make a recipe of, but has none",
           "only models that slmc made have one");
  Json root;
  try {
    root = recipe_json(entries);
  } catch (const Json::exception&) {
    throw Error(ErrorKind::Model, "the lineage must hold what slmc wrote, but a field is of another kind");
  }
  Problems problems;
  const Place place{"the lineage", 0, 0, 1, {}};
  const Recipe recipe = decode_tree(from_json(root, place), "", "", {registry, folder, problems});
  throw_problems(std::move(problems), "", ErrorKind::Unsupported);
  return to_yaml(recipe, folder);
}

}  // namespace slmc::recipe
