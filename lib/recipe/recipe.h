#pragma once
// A decoded recipe: what a person wrote, checked against the registry, with typed settings and absolute
// paths. No model was opened yet; resolve.h does that. Text -> document.h -> recipe.h -> resolve.h -> run.h.
//
//   slmc: 1                       version of the format, required
//   name: smollm2-to-go           letters, digits, - _ .
//   model: PATH | hf:org/name     relative paths are relative to the recipe's folder, everywhere
//   data: {NAME: {files: [...], samples: 128, seq: 512} | {mix: {DOMAIN: {files, weight}}, seq: 512}}
//                                 each with optional field, label, skip_last, seed, licence
//   stages: [{id, use, with: {...}}]
//   eval: {every_stage: true, reference: $model,
//          tasks: [{ppl: FILE, window, windows} | {choices: FILE, first} | {pairs: FILE, first} | {classify: FILE, per_class}],
//          each with optional name}
//   gates: {METRIC: {max: 2.0} | {min: 0.6}}      METRIC or METRIC:TASK; bytes may be written as 82MB
//   sweep: {STAGE.SETTING: [values], seed: [1, 2, 3]}          the chain for every combination, the first key slowest
//   report: report.html   seed: 0   device: cpu
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/json.h"
#include "stage/info.h"
#include "stage/settings.h"

namespace slmc::recipe {

inline constexpr int kRecipeVersion = 1;

struct DataFile {
  std::filesystem::path path;  // absolute
  Place place;
};

struct DataSection {
  SharedJson spec;                              // as data::data_spec_from_json reads it, paths absolute
  std::vector<DataFile> files;                  // all of them, in order
  std::map<std::string, std::string> licences;  // by domain ("" for a plain section)
  Place place;
};

struct StageEntry {
  std::string id;
  std::string use;                         // the stage's name
  const stage::StageInfo* info = nullptr;  // in the registry that decoded it
  stage::Settings settings;                // complete; paths absolute, models "$id", "hf:..." or absolute
  Place place;                             // of the entry
  // Inline sections, by the name of the setting of type Data
  std::map<std::string, DataSection> data;
  std::map<std::string, Place> places;  // of each setting that was written
};

struct EvalTask {
  std::string kind;            // "ppl", "choices", "pairs", "classify"
  std::string name;            // the file's stem unless given; unique
  std::filesystem::path file;  // absolute
  stage::Settings settings;    // of stage::eval_task_table(), the file included
  Place place;
};

struct EvalSection {
  bool every_stage = true;           // else the input and the last model only
  std::string reference = "$model";  // "$model", "$id", a path, "hf:..."; "none" is ""
  std::vector<EvalTask> tasks;
  Place place;
};

struct Gate {
  std::string metric;  // "ppl_ratio", "ppl:wiki.test"
  std::optional<double> least, most;
  Place place;
};

struct Recipe {
  std::string file;              // for messages; "" when made from a command line
  std::filesystem::path folder;  // that relative paths are relative to
  std::string text;              // as written, for the report
  std::string name;
  std::string model;  // absolute path or "hf:org/name"
  Place model_place;
  std::map<std::string, DataSection> data;
  std::vector<StageEntry> stages;
  std::optional<EvalSection> eval;
  std::vector<Gate> gates;
  std::filesystem::path report;  // absolute, or empty
  std::uint64_t seed = 0;
  std::string device;  // "" = the caller's choice
  std::vector<std::pair<std::string, std::string>> variant;  // of a sweep: each swept key and the value that it has here, as text
};

// `set` holds "width.ffn=1280", "seed=3", "data.calib.samples=64", "sweep.width.ffn=[1280, 1024]": a stage id or a top-level key, then the
// path. Stronger than the file. All problems at once: Error(Recipe). One recipe for each combination of a sweep's values, in order; one
// without a sweep.
std::vector<Recipe> decode_all(std::string_view text, const std::string& file, const stage::Registry& registry,
                               const std::vector<std::string>& set = {});
std::vector<Recipe> read_recipes(const std::filesystem::path& file, const stage::Registry& registry,
                                 const std::vector<std::string>& set = {});
// The same for who can take one only: Error(Recipe) when there is a sweep.
Recipe decode(std::string_view text, const std::string& file, const stage::Registry& registry,
              const std::vector<std::string>& set = {});

// `slmc prune MODEL -o OUT --ffn 1280` is a recipe of one stage. Errors name the option ("--ffn") and are
// Error(Usage).
struct StageRequest {
  std::string use;
  std::string model;
  // By setting name, text as typed; relative paths to `folder`
  std::map<std::string, std::string> settings;
  std::map<std::string, std::vector<std::string>> data;  // "calib" -> files
  std::int64_t samples = 128, seq = 512;                 // of calib; train takes seq only
  std::filesystem::path folder;                          // the current folder
  std::uint64_t seed = 0;
};
Recipe one_stage_recipe(const StageRequest& request, const stage::Registry& registry);

// A recipe as YAML that decodes to the same one. Only what differs from the defaults is written; paths
// relative to `folder` where they lie below it, absolute ones when it is empty.
std::string to_yaml(const Recipe& recipe, const std::filesystem::path& folder);

Json recipe_schema(const stage::Registry& registry);   // JSON Schema, draft 7
std::string starter_recipe(const std::string& model);  // for `slmc recipe init`

}  // namespace slmc::recipe
