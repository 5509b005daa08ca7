#include "recipe/keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/hash.h"

namespace slmc::recipe {
namespace fs = std::filesystem;

namespace {

constexpr int kKeyVersion = 2;

bool is_content(const fs::path& path) {
  const std::string name = path.filename().string();
  return !name.starts_with(".") && name != "lineage.json" && !name.ends_with(".md") &&
         fs::is_regular_file(path);
}

Json map_json(const std::map<std::string, std::string>& map) {
  Json out = Json::object();
  for (const auto& [name, value] : map) out[name] = value;
  return out;
}

// The paths of a data spec replaced by what the files hold; one pass over `files`, which are in the spec's
// order.
void replace_files(Json& spec, std::vector<DataFile>::const_iterator& next) {
  if (spec.contains("files")) {
    for (Json& file : spec["files"]) file = sha256_file((next++)->path);
  }
  if (spec.contains("mix")) {
    for (auto& [name, domain] : spec["mix"].items()) replace_files(domain, next);
  }
}

}  // namespace

std::string model_key(const fs::path& model) {
  if (!fs::is_directory(model)) {
    try {
      return sha256("slmc model file\n" + sha256_file(model));
    } catch (const Error& error) {
      throw Error(ErrorKind::Model, error.diagnostics());
    }
  }
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(model)) {
    if (is_content(entry.path())) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  if (files.empty())
    throw Error(ErrorKind::Model, Place{model.string(), 0, 0, 1, {}},
                "the model folder must hold files, but is empty");
  std::string text = "slmc model folder\n";
  for (const fs::path& file : files)
    text += fmt::format("{}  {}\n", sha256_file(file), file.filename().string());
  return sha256(text);
}

std::string data_key(const DataSection& data) {
  Json spec = *data.spec;
  auto next = data.files.begin();
  replace_files(spec, next);
  SLMC_CHECK(next == data.files.end());
  return sha256("slmc data\n" + dump_compact(spec));
}

Json to_json(const KeyInputs& inputs) {
  Json out = {{"slmc_key", kKeyVersion}, {"op", inputs.op}, {"source", inputs.source}, {"seed", inputs.seed}};
  out["models"] = map_json(inputs.models);
  out["arch"] = map_json(inputs.arch);
  out["files"] = map_json(inputs.files);
  out["data"] = map_json(inputs.data);
  out["settings"] = inputs.settings ? *inputs.settings : Json::object();
  out["engine"] = {
      {"torch", inputs.facts.torch}, {"device", inputs.facts.device}, {"gemm", inputs.facts.gemm}};
  if (inputs.trains) out["threads"] = inputs.threads;
  if (inputs.trains) out["ranks"] = inputs.ranks;
  return out;
}

std::string key_of(const KeyInputs& inputs) { return sha256(dump_compact(to_json(inputs))); }

}  // namespace slmc::recipe
