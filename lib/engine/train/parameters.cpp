#include "engine/train/parameters.h"

#include <cmath>

#include "core/bytes.h"
#include "core/error.h"
#include "core/rng.h"
#include "engine/tensors.h"
#include "ir/gguf_form.h"
#include "ir/plan.h"

namespace slmc::engine {
namespace {

constexpr double kDeviation = 0.02;

bool ends_with_any(const std::string& name, std::initializer_list<const char*> endings) {
  for (const char* ending : endings) {
    if (name.ends_with(ending)) return true;
  }
  return false;
}

bool decays(const std::string& name, const at::Tensor& value) { return value.dim() >= 2 && name != "embed" && name != "pos"; }

// The globs, with a note of which matched.
class Frozen {
 public:
  explicit Frozen(const std::vector<std::string>& globs) : globs_(globs), used_(globs.size(), false) {}
  bool matches(const std::string& name) {
    bool any = false;
    for (std::size_t i = 0; i < globs_.size(); ++i) {
      if (!ir::glob_matches(globs_[i], name)) continue;
      any = used_[i] = true;
    }
    return any;
  }
  void require_used() const {
    for (std::size_t i = 0; i < globs_.size(); ++i) {
      if (!used_[i]) {
        throw Error(ErrorKind::Usage, "each pattern of freeze must match a tensor, but '" + globs_[i] + "' matches none",
                    "names are like embed, block.0.attn.q, block.*.ffn.*; slmc inspect MODEL lists them");
      }
    }
  }

 private:
  const std::vector<std::string>& globs_;
  std::vector<bool> used_;
};

}  // namespace

std::vector<ParameterGroup> parameter_groups(PlainWeights& weights, double weight_decay, const std::vector<std::string>& frozen) {
  std::vector<ParameterGroup> groups{{{}, weight_decay, 1.0}, {{}, 0.0, 1.0}};
  Frozen globs(frozen);
  for (auto& [name, value] : weights.all()) {
    if (name.ends_with(".rope") || globs.matches(name)) continue;
    value.requires_grad_();
    groups[decays(name, value) ? 0 : 1].parameters.push_back({name, value});
  }
  globs.require_used();
  if (groups[0].parameters.empty() && groups[1].parameters.empty()) {
    throw Error(ErrorKind::Usage, "freeze must leave some tensors to train, but leaves none");
  }
  return groups;
}

ir::Model with_values(const ir::Model& base, const std::vector<ParameterGroup>& groups) {
  ir::Plan plan(base);
  plan.base_content = base.content_hash();
  for (const ParameterGroup& group : groups) {
    for (const Parameter& p : group.parameters) plan.set[p.name].value = share(p.value.detach());
  }
  return ir::apply(plan, base);
}

io::TensorData drawn_weights(const ir::TensorSpec& spec, std::int64_t blocks, std::uint64_t seed) {
  std::vector<float> values(element_count(spec.shape, spec.name));
  if (spec.shape.size() >= 2) {
    const bool residual = ends_with_any(spec.name, {".attn.o", ".ffn.down"});
    const double deviation = residual ? kDeviation / std::sqrt(2.0 * static_cast<double>(blocks)) : kDeviation;
    const Rng rng(derive_seed(seed, spec.name));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(deviation * rng.normal(i));
  } else {
    std::fill(values.begin(), values.end(), spec.name.ends_with(".bias") ? 0.0f : 1.0f);
  }
  return io::TensorData::floats(spec.shape, values);
}

}  // namespace slmc::engine
