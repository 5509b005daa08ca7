#pragma once
// Keys of containers' configs, and the axes that blocks have. Private to lib/ir.
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "core/error.h"
#include "ir/model.h"

namespace slmc::ir {

inline Place at_file(const std::string& file) { return Place{file, 0, 0, 1, {}}; }

// "Hugging Face", "GGUF"
std::string form_name(const std::string& container);
// Prefix of a family's own keys: "llama." in GGUF, nothing in Hugging Face.
std::string prefix_of(const Json& config, const std::string& container);
// The same GGUF config under another architecture's name: "llama.block_count" becomes "deci.block_count".
Json renamed_architecture(const Json& config, const std::string& architecture);
// HF: a path through nested objects, "rope_parameters.rope_theta"; GGUF: `prefix` + key. nullptr when absent.
const Json* find_key(const Json& config, const std::string& container, const std::string& prefix,
                     std::string_view key);
// The values of a map of names, as an expression's scope asks for them. `names` must outlive the result.
std::function<const Json*(std::string_view)> lookup(const std::map<std::string, Json>& names);

struct AxisField {
  const char* name;
  std::int64_t BlockSizes::*size;
};
inline constexpr AxisField kBlockAxes[] = {{"kv", &BlockSizes::kv},     {"q", &BlockSizes::q},
                                           {"freq", &BlockSizes::freq}, {"pass", &BlockSizes::pass},
                                           {"vd", &BlockSizes::vd},     {"ffn", &BlockSizes::ffn}};

}  // namespace slmc::ir
