#pragma once
// A stage's key: SHA-256 over everything that its result depends on, and nothing else. Equal keys, equal
// bytes.
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "core/json.h"
#include "recipe/recipe.h"
#include "recipe/resolve.h"

namespace slmc::recipe {

// Hash of the sources built into this program, as cmake/source_hash.cmake took it: of lib/ without recipe and
// report and the engine's main, and of one method folder ("pruning"); of all folders when `folder` is "", of
// none when it is "lib". Templates are no part of it: KeyInputs::arch has those that are used.
std::string source_hash(const std::string& folder);
std::string slmc_version();  // "0.1.0"

// Content of a model on disk: names and bytes of its files; lineage, notes and hidden files left out, so a
// copy has the same key.
std::string model_key(const std::filesystem::path& model);
// Content of a data section's files and its settings.
std::string data_key(const DataSection& data);

struct KeyInputs {
  std::string op;
  std::string method_folder;                  // StageInfo::folder; "" = all
  std::map<std::string, std::string> models;  // "model", and by setting name: keys
  std::map<std::string, std::string> arch;    // family -> ir::Template::hash of what the models are read and written through
  std::map<std::string, std::string> files;   // by setting name: SHA-256 of Path settings
  std::map<std::string, std::string> data;    // "calib", "train", settings of type Data
  SharedJson settings;                        // canonical, without paths and models
  std::uint64_t seed = 0;
  EngineFacts facts;
  bool trains = false;
  int threads = 0, ranks = 0;  // enter only when `trains`
  std::string source;          // source_hash
};
std::string key_of(const KeyInputs& inputs);
Json to_json(const KeyInputs& inputs);  // kept in the manifest, so that `plan` can say what changed

}  // namespace slmc::recipe
