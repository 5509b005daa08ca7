#include "engine/train/lora.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "core/rng.h"
#include "engine/functions.h"
#include "io/safetensors.h"
#include "ir/gguf_form.h"
#include "ir/write.h"

namespace slmc::engine {
namespace {

at::Tensor drawn(const std::string& name, std::int64_t rank, std::int64_t in, std::uint64_t seed, const at::TensorOptions& options) {
  const Rng rng(derive_seed(seed, name + ".lora_A"));
  const double bound = 1 / std::sqrt(static_cast<double>(in));
  std::vector<double> values(static_cast<std::size_t>(rank * in));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = bound * (2 * rng.uniform(i) - 1);
  return at::tensor(values).view({rank, in}).to(options);
}

at::Tensor map(const at::Tensor& x, const at::Tensor& weight) {
  return can_fuse(x) && can_fuse(weight) ? engine::linear(x, weight, at::Tensor()) : at::linear(x, weight);
}

// The matrices of the blocks that the globs name.
std::vector<std::string> targets_of(const ir::Model& model, const std::vector<std::string>& globs) {
  std::vector<std::string> out;
  std::set<std::string> used;
  for (const ir::TensorSpec& spec : model.tensors()) {
    if (spec.block < 0 || spec.derived || spec.shape.size() != 2) continue;
    bool wanted = globs.empty();
    for (const std::string& glob : globs) {
      if (ir::glob_matches(glob, spec.name)) wanted = true, used.insert(glob);
    }
    if (wanted) out.push_back(spec.name);
  }
  for (const std::string& glob : globs) {
    if (used.contains(glob)) continue;
    throw Error(ErrorKind::Usage, fmt::format("each pattern of lora_targets must match a matrix of the blocks, but '{}' matches none", glob),
                "names are like block.0.attn.q, block.*.ffn.*; slmc inspect MODEL lists them");
  }
  return out;
}

}  // namespace

LoraWeights::LoraWeights(PlainWeights& base, const ir::Model& model, const LoraSettings& settings, std::uint64_t seed) : base_(base), settings_(settings) {
  SLMC_CHECK(settings.rank > 0 && settings.alpha > 0);
  for (const std::string& name : targets_of(model, settings.targets)) {
    const at::Tensor w = base.tensor(name);                // [out, in]
    adapters_[name] = {drawn(name, settings.rank, w.size(1), seed, w.options()).requires_grad_(),
                       at::zeros({w.size(0), settings.rank}, w.options()).requires_grad_()};
  }
}

at::Tensor LoraWeights::linear(const std::string& name, const at::Tensor& x) {
  SLMC_CHECK(!merged_);
  const at::Tensor y = base_.linear(name, x);
  const auto it = adapters_.find(name);
  return it == adapters_.end() ? y : y + map(map(x, it->second.a), it->second.b) * scale();
}

ParameterGroup LoraWeights::parameters(double weight_decay) const {
  ParameterGroup out{{}, weight_decay, 1.0};
  for (const auto& [name, adapter] : adapters_) {
    out.parameters.push_back({name + ".lora_A", adapter.a});
    out.parameters.push_back({name + ".lora_B", adapter.b});
  }
  return out;
}

std::vector<ParameterGroup> LoraWeights::merge() {
  SLMC_CHECK(!merged_);
  const at::NoGradGuard no_grad;
  merged_ = true;
  std::vector<ParameterGroup> out(1);
  for (const auto& [name, adapter] : adapters_) {
    at::Tensor w = base_.tensor(name);
    w.addmm_(adapter.b.detach(), adapter.a.detach(), 1, scale());
    out[0].parameters.push_back({name, w});
  }
  return out;
}

namespace {

std::string last_part(const std::string& layer) { return layer.substr(layer.rfind('.') + 1); }

// PEFT adapts every layer whose name ends in one of these: the last part alone where all such layers of the model are adapted, else the whole names.
std::set<std::string> target_modules(const std::set<std::string>& adapted, const std::map<std::string, std::string>& stored) {
  std::set<std::string> out, incomplete;
  for (const auto& [name, hf] : stored) {
    const std::string layer = hf.substr(0, hf.rfind('.'));
    if (!adapted.contains(layer)) incomplete.insert(last_part(layer));
  }
  for (const std::string& layer : adapted) out.insert(incomplete.contains(last_part(layer)) ? layer : last_part(layer));
  return out;
}

}  // namespace

void write_peft(const std::filesystem::path& folder, const LoraWeights& weights, const ir::Model& model) {
  const std::map<std::string, std::string> stored = ir::hf_matrices(model);
  std::map<std::string, at::Tensor> tensors;
  std::set<std::string> adapted;
  for (const auto& [name, adapter] : weights.adapters()) {
    const auto it = stored.find(name);
    if (it == stored.end() || !it->second.ends_with(".weight")) {
      throw Error(ErrorKind::Unsupported, fmt::format("an adapter for PEFT must be of a matrix that Hugging Face stores as it is, but '{}' is fused, permuted or transposed", name));
    }
    const std::string layer = it->second.substr(0, it->second.size() - std::string_view(".weight").size());
    adapted.insert(layer);
    tensors["base_model.model." + layer + ".lora_A.weight"] = adapter.a.detach().to(at::kCPU, at::kFloat).contiguous();
    tensors["base_model.model." + layer + ".lora_B.weight"] = adapter.b.detach().to(at::kCPU, at::kFloat).contiguous();
  }
  std::vector<io::SafetensorsWriter::Entry> entries;
  for (const auto& [name, t] : tensors) entries.push_back({name, DType::F32, t.sizes().vec()});
  std::filesystem::create_directories(folder);
  io::SafetensorsWriter writer = io::SafetensorsWriter::single(folder / "adapter_model.safetensors", std::move(entries), {{"format", "pt"}});
  for (const auto& [name, t] : tensors) writer.write(name, {static_cast<const std::byte*>(t.const_data_ptr()), t.nbytes()});
  writer.finish();
  Json config = {{"peft_type", "LORA"}, {"task_type", "CAUSAL_LM"}, {"base_model_name_or_path", Json()}, {"inference_mode", true}};
  config["r"] = weights.settings().rank;
  config["lora_alpha"] = weights.settings().alpha;
  config["lora_dropout"] = 0.0;
  config["target_modules"] = target_modules(adapted, stored);
  config["bias"] = "none";
  config["fan_in_fan_out"] = false;
  config["modules_to_save"] = Json();
  write_json(folder / "adapter_config.json", config);
}

}  // namespace slmc::engine
