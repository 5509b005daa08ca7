#pragma once
// One family of architectures, read from configs/arch/<family>.json (compiled in as a fallback): which
// configs it matches, how config keys become sizes and decoder options and are written back, and how each
// stored tensor of each container is made of logical ones. configs/arch/README.md explains the file; the
// reader refuses every key it does not use.
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/json.h"
#include "ir/dim.h"
#include "ir/expr.h"

namespace slmc::ir {

// A stored tensor and the logical ones inside it. Names may hold {block}; a label "attn.q" inside the layout
// of such a tensor means "block.{block}.attn.q".
struct StoredSpec {
  std::string name;         // "model.layers.{block}.self_attn.q_proj.weight"
  std::string is;           // logical tensor of terms without a "tensor:" prefix
  std::vector<Dim> layout;  // stored dimensions, outermost first
  double add = 0;           // logical = stored + add (Gemma stores gain - 1)
  Expr when;                // stands in the file when true; empty: always
  bool optional = false;    // may be absent, then its logical tensors are too
  bool spare =
      false;  // may stand in the file when `when` is false, and is not read (an lm_head that is tied)
  bool ignored = false;  // may be present and is never read (rotary caches, attention masks)
  bool rope_factors =
      false;  // [freq] divisors of the default rotary frequencies (rope_freqs.weight of llama.cpp)
};

struct LogicalSpec {
  std::string name;       // "block.{block}.attn.q"
  std::vector<Dim> dims;  // "kv q (two freq + pass)", "hidden"
};

// What a container demands of a model that it holds, beyond sizes that its keys can say.
struct Law {
  std::string axis;  // the axis to change when it is broken: "hidden"
  Expr must;         // "hidden % heads == 0", over the names of `read`
  std::string say;   // why, for people
};

// Configs of this family that the decoder can't compute.
struct Refusal {
  Expr when;        // over the config's keys and the names of `read`
  std::string say;  // "'x' must be a, but is b"
};

// How a container says that blocks differ: under another architecture's name, whose readers take some keys block by block.
struct PerBlock {
  std::string match;              // "deci"; empty: every block must be like the first
  std::vector<std::string> axes;  // whose sizes may differ; 0 where a block lacks the part
  std::vector<std::string> keys;  // that may hold a list with one entry per block
};

struct ContainerSpec {
  std::vector<std::string> match;                  // model_type of Hugging Face, general.architecture of GGUF
  PerBlock per_block;
  std::string base_prefix;                         // may be missing from all names of a file ("model.")
  std::vector<std::pair<std::string, Expr>> read;  // names in order; resolve.h lists those that must be there
  std::vector<std::pair<std::string, Expr>>
      write;  // config key -> value; "key?" only where the key already is
  std::vector<std::pair<std::string, SharedJson>>
      fresh;  // keys of a config made anew: an Expr as text, or a constant
  std::vector<Refusal> refuse;
  std::vector<Law> laws;
  std::vector<std::string> harmless;  // keys that change nothing in the forward pass
  std::vector<StoredSpec> tensors;    // in the order of files that we write
};

struct Template {
  std::string family;
  std::string file;                                 // for messages; "built in" when compiled in
  std::string hash;                                 // SHA-256 of its JSON without white space: what it says, wherever it stands
  std::vector<LogicalSpec> tensors;                 // in forward order
  std::map<std::string, ContainerSpec> containers;  // "hf", "gguf"
};

using Templates = std::vector<std::shared_ptr<const Template>>;

// All templates: those of folder `more` first, then the built-in ones (a family of `more` replaces the
// built-in one).
Templates load_templates(const std::filesystem::path& more = {});
std::shared_ptr<const Template> parse_template(const Json& json, const std::string& file);  // Error(Recipe)
// The one that matches; Error(Unsupported) lists the known ones and suggests the nearest.
std::shared_ptr<const Template> find_template(const Templates& all, const std::string& container,
                                              const std::string& match, const std::string& file);

// Text of the templates compiled in: (file name, JSON text).
const std::vector<std::pair<std::string, std::string>>& built_in_templates();

}  // namespace slmc::ir
