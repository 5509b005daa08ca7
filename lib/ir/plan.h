#pragma once
// A plan says how one model becomes another. It is JSON that a person can read and edit, and the only thing that methods hand
// to `apply`. Keys are applied in this order:
//   take    {"block": [0,1,4], "block.4.ffn": [...], "hidden": [...]}   gather on all axes at once, in coordinates of the base;
//           order permutes, repeats copy, [] removes the part ("block.3.kv": [] removes attention of block 3)
//   set     {"block.1.ffn.down": {"file": "plan.safetensors", "tensor": "block.1.ffn.down"}}   names of the RESULT (after take);
//           or {"copy": "embed"}, a tensor of the base
//   config  {"context": 2048}      resolved decoder options by name: context, window (null: none), norm_eps, attn_scale,
//           parallel_residual; "family" stores the result as another family's config
//   format  {"*": "q4_0", "embed": "q8_0"}   stored type per tensor (GGUF names, or F32 F16 BF16); last matching glob wins
// {"slmc_plan": 1, "base": {"shape": hash, "content": hash or ""}, "take": ..., "set": ..., "config": ..., "format": ...,
//  "why": {free text and scores of the method that decided}}
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "io/tensor_data.h"
#include "ir/model.h"

namespace slmc::ir {

struct SetFrom {
  std::string file;                        // relative to the plan's folder
  std::string tensor;                      // name in that file; quantized tensors as NAME.codes / .scales / .mins
  std::string copy;                        // logical name in the base; used when `file` is empty
  std::optional<io::TensorData> value;     // in memory, not yet written
};

struct Plan {
  std::string base_shape;
  std::string base_content;                // required when `set` holds values
  std::map<std::string, std::vector<std::int64_t>> take;
  std::map<std::string, SetFrom> set;
  SharedJson config;                          // object
  std::vector<std::pair<std::string, std::string>> format;   // glob -> type, in order
  SharedJson why;                          // object
  std::filesystem::path folder;            // where the files of `set` are; not part of the JSON
  std::shared_ptr<const Model> base;       // set by Plan(base): gives base_content when values are written
  Plan() = default;
  explicit Plan(const Model& model);       // fills base_shape; base_content follows when the plan is written with values
};

Plan plan_from_json(const Json& json, const std::string& file);          // strict; Error(Recipe)
Plan read_plan(const std::filesystem::path& file);                       // `set` values are read when the result is
// The value of one entry of `set` that is not a copy. Error(Model) when the file lacks it.
io::TensorData read_value(const SetFrom& from, const std::filesystem::path& folder);
Json to_json(const Plan& plan);
// Writes FOLDER/plan.json and, when there are values, FOLDER/plan.safetensors.
void write_plan(const std::filesystem::path& folder, const Plan& plan);

// One broken rule of a plan, found without reading weights.
struct Violation {
  std::string axis_or_tensor;              // "block.3.ffn"
  std::string message;                     // "the feed-forward width must be the same in every block for ..., but is ..."
  std::string nearest;                     // nearest legal value: "1376"; may be empty
};

struct Verdict {
  std::vector<Violation> violations;                     // the plan itself is illegal
  std::map<std::string, std::vector<Violation>> cannot;  // container ("hf", "gguf") -> why it can't hold the result
  bool ok() const { return violations.empty(); }
  bool fits(const std::string& container) const;         // ok and nothing in `cannot`
};

// All violations at once. Shapes of the result are given even when containers refuse it.
Verdict check(const Plan& plan, const Model& base);
void require_ok(const Verdict& verdict, const std::string& container);   // Error(Recipe) listing all; container "" = any

// The changed model: lazy, nothing is read yet. Tied heads stay tied unless `set` gives one. Error as require_ok(…, "").
// A take that cuts through quantized groups dequantizes that tensor exactly to F32. Origin and tokenizer follow.
Model apply(const Plan& plan, const Model& base);

}  // namespace slmc::ir
