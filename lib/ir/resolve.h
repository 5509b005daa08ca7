#pragma once
// From a container's config to everything the decoder uses, and back.
// Names that a template's `read` must define:
//   vocab hidden blocks kv q freq pass vd ffn pos context       sizes (whole numbers; every block the same, but where the container
//                                                               says blocks apart: PerBlock of template.h)
//   norm ('rms' 'layer')  norm_eps  activation  gated  parallel_residual  tied_head  attn_scale
//   pos_offset, 0 when not defined: row of the learned positions that the first token reads
//   window (tokens or null)  window_here (per block, may use `block`)
//   rope_theta + rope_scaling + rope_original, or rope_theta + rope_type + rope_factor; none: no rotation
// Names that `write` and `fresh` may use besides: heads head_dim partial rope_parameters layer_types bos eos; laws also `block`
// (R1) resolve(write(x)) == x, or `fit` says what the container can't say.
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "ir/layout.h"
#include "ir/model.h"
#include "ir/plan.h"
#include "ir/rope.h"
#include "ir/template.h"

namespace slmc::ir {

struct Resolved {
  Sizes sizes;
  Decoder decoder;
  Rope rope;
  std::map<std::string, Json> names;  // every name of `read`, for `when`; of block 0
};

// What a config stands in: callbacks answer for the file around it.
struct ConfigSource {
  const Json* config = nullptr;  // HF: nested object; GGUF: flat object with whole keys ("llama.block_count")
  std::string file;
  std::function<bool(std::string_view tensor)> stored;
  std::function<std::int64_t(std::string_view tensor)> rows;
  std::function<std::vector<float>()> rope_factors;  // GGUF only; empty when the file has none
};

// Error(Model) for missing or contradicting keys, Error(Unsupported) for what slmc can't compute, unknown
// keys included.
Resolved resolve(const Template& arch, const std::string& container, const ConfigSource& source);

// Everything about a model that a container must hold, without weights.
struct Facts {
  const Template* arch = nullptr;
  Sizes sizes;
  Decoder decoder;
  std::vector<Rope> ropes;  // [block]; blocks without attention hold type "none"
  std::vector<TensorSpec> tensors;
  std::optional<std::int32_t> bos, eos;
};

struct KeyChange {
  std::string key;  // HF: "rope_parameters.partial_rotary_factor"; GGUF: "llama.block_count"
  Json value;
};

// How a container would hold a model.
struct Fit {
  std::vector<Violation> violations;  // empty: it can
  std::string architecture;           // GGUF: general.architecture, and the prefix of the family's keys
  std::vector<KeyChange> changes;     // to the base config
  std::vector<StoredTensor> stored;   // in the container's order
  bool rope_factors = false;          // a tensor of rotary divisors is written too
  double fold_q = 1;  // queries are multiplied by this, because the container fixes attn_scale
  Decoder decoder;    // as it will be read back
};

// `base` is the config that is changed (the model's own when it came from the same container), or null: made
// anew.
Fit fit(const Facts& facts, const std::string& container, const Json* base);

// Nested ("a.b") or flat set of a key, keeping a value that says the same in another spelling (1e4 for
// 10000).
void set_key(Json& config, const std::string& container, const KeyChange& change);

Activation activation_from(const std::string& name, const std::string& file);
std::string to_string(Activation activation);  // Hugging Face's spelling

// Float precision, shortest decimal: 9.999999747378752e-06 -> 1e-05, so that containers that keep floats
// (GGUF) and those that keep decimals agree.
double as_decimal_float(double value);

}  // namespace slmc::ir
