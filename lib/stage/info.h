#pragma once
// What a stage and its methods are, without LibTorch: recipes, help, schema and plans are made from these
// records. The engine has a second table that maps the same names to code; tests/unit/registry_test.cpp holds
// the two together.
#include <string>
#include <string_view>
#include <vector>

#include "stage/settings.h"

namespace slmc::stage {

struct Needs {
  bool calib = false;    // calibration windows (data.calib)
  bool train = false;    // training windows (data.train)
  bool teacher = false;  // another model
  bool dense = true;     // refuses quantized weights it would have to change; false: takes any
  bool engine = true;    // false: runs in the front program (convert, edit)
  bool whole = false;    // the whole model in memory, not block by block
  double passes = 0;     // forward passes over the calibration text, for predicted times
  bool drawn = false;    // draws its weights: of the model it takes config and tokenizer, weights need not be there
};

// A method of a stage, chosen by one of the stage's Choice settings: criterion: wanda, search: greedy-kl,
// method: gptq; or by "true" of a Boolean one: refit: true.
struct MethodInfo {
  std::string setting;  // "criterion"
  std::string name;     // "wanda"
  std::string summary;  // one line
  std::string paper;    // "Sun et al. 2023, arXiv:2306.11695"
  Needs needs;          // added to the stage's
  std::string unless;   // settings "list, keep_first": when one is given, this method is unused, because it gives what `search` finds
};

// What a setting does to the model's shape when it is a plain value, so that a chain is checked before
// anything runs.
struct Effect {
  enum class Kind {
    Resize,       // `ffn: 1280`: the axis gets this size in every block
    Merge,        // `kv: 1` beside `kv_mode: merge`: groups become so many, each with the query heads of those it was made of
    RemoveCount,  // `layers: 3`: so many entries fewer; which ones is measured
    RemoveList,   // `list: [3, 4]`: these entries are removed
  };
  Kind kind = Kind::Resize;
  std::string setting;  // "ffn"
  std::string axis;     // "ffn", "kv", "block", "vocab"
  // Another setting and the value beside which shapes change; empty: always
  std::string only_beside, only_value;
  Needs needs = {};  // added to the stage's when the setting is given
};

struct StageInfo {
  std::string name;     // "prune": recipe word and subcommand
  std::string summary;  // one line
  Needs needs;
  // "hf" (a model folder), "gguf", "packed", or "" when the setting `to` decides
  std::string output;
  std::vector<Setting> settings;
  std::vector<MethodInfo> methods;
  std::vector<Effect> effects;
  // Its result holds quantized weights; settings `type` and `group` say which, where it has them
  bool quantizes = false;
  bool trains = false;  // its result depends on threads and ranks, and it continues from checkpoints
  std::string folder;   // whose sources decide its result besides lib/: "pruning"; "" = all of them
};

// Every stage of the program, in the order of help; defined in lib/stage/registry.cpp from the *_info.cpp of
// the method folders (handed over by the programs' main, since stage may not include them).
class Registry {
 public:
  void add(StageInfo info);
  const StageInfo* find(std::string_view name) const;
  const std::vector<StageInfo>& all() const { return stages_; }
  std::vector<std::string> names() const;

 private:
  std::vector<StageInfo> stages_;
};

// Needs of a stage with its chosen methods.
Needs needs_of(const StageInfo& info, const Settings& settings);
// "hf", "gguf" or "packed": what the stage writes with these settings.
std::string output_of(const StageInfo& info, const Settings& settings);

// The whole reference of stages, settings and methods as Markdown: `slmc help settings` and docs/settings.md.
std::string settings_reference(const Registry& registry);

}  // namespace slmc::stage
