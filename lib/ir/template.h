#pragma once
// One family of architectures, read from configs/arch/<family>.json (compiled in as a fallback): which configs it matches,
// how config keys become sizes and decoder options and are written back, and how each stored tensor of each container is made
// of logical ones. configs/arch/README.md explains the file; the reader refuses every key it does not use.
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "ir/dim.h"

namespace slmc::ir {

// A stored tensor and the logical ones inside it. The layout's dims name them; a single unnamed tensor uses `is`.
struct StoredSpec {
  std::string name;                     // "model.layers.{block}.self_attn.q_proj.weight"
  std::string is;                       // logical tensor of terms without a "tensor:" prefix
  std::vector<Dim> layout;              // stored dimensions, outermost first
  double add = 0;                       // logical = stored + add (Gemma stores gain - 1)
  bool optional = false;                // may be absent (biases, untied head)
  bool ignored = false;                 // may be present and is not read (rotary caches, attention masks)
};

struct LogicalSpec {
  std::string name;                     // "block.{block}.attn.q"
  std::vector<Dim> dims;                // "kv q (two freq + pass)", "hidden"
};

struct Template {
  std::string family;
  std::string file;                     // for messages; "built in" when compiled in
  std::vector<LogicalSpec> tensors;     // in forward order
  std::map<std::string, std::vector<StoredSpec>> stored;   // "hf", "gguf"
  SharedJson config;                       // mapping of config keys, laws and constants per container; see configs/arch/README.md
};

std::vector<std::shared_ptr<const Template>> load_templates(const std::filesystem::path& more = {});
std::shared_ptr<const Template> parse_template(const Json& json, const std::string& file);   // Error(Recipe)

}  // namespace slmc::ir
