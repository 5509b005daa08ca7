#pragma once
// Low-rank adapters in place of the weights [Hu et al. 2021, arXiv:2106.09685, equation 3]: y = x W^T + b + (alpha / r) (x A^T) B^T with W and b
// fixed, A [r, in] drawn and B [out, r] zero at first. One way for named weights to act (weights.h): tasks and the trainer see no difference.
// (R1) with B = 0 the model is the base, bit for bit   (R2) after merge() the base acts as the adapted model did
// Differs from LLM-Pruner's recovery: no dropout between x and A.
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "engine/train/adamw.h"
#include "engine/weights.h"
#include "ir/model.h"

namespace slmc::engine {

struct LoraSettings {
  std::int64_t rank = 8;
  double alpha = 16;
  std::vector<std::string> targets;        // globs over logical names; empty: every matrix of the blocks
};

class LoraWeights : public Weights {
 public:
  struct Adapter {
    at::Tensor a, b;                       // [r, in], [out, r]; leaves that require gradients
  };
  // `base` must outlive this. A ~ U(-1/sqrt(in), 1/sqrt(in)), as PEFT draws it: a pure function of seed and name. Error(Usage) when a glob
  // matches no matrix of the blocks.
  LoraWeights(PlainWeights& base, const ir::Model& model, const LoraSettings& settings, std::uint64_t seed);
  bool has(const std::string& name) const override { return base_.has(name); }
  at::Tensor tensor(const std::string& name) override { return base_.tensor(name); }
  at::Tensor linear(const std::string& name, const at::Tensor& x) override;

  const std::map<std::string, Adapter>& adapters() const { return adapters_; }
  const LoraSettings& settings() const { return settings_; }
  // What is trained: "NAME.lora_A", "NAME.lora_B". The decay is of both.
  ParameterGroup parameters(double weight_decay) const;
  // Adds (alpha / r) B A to the base, in place, and gives the changed weights by name. The adapters keep their values and must not act again.
  std::vector<ParameterGroup> merge();

 private:
  double scale() const { return settings_.alpha / static_cast<double>(settings_.rank); }
  PlainWeights& base_;
  LoraSettings settings_;
  std::map<std::string, Adapter> adapters_;
  bool merged_ = false;
};

// The adapters as PEFT reads them [github.com/huggingface/peft, LoRA checkpoint format]: FOLDER/adapter_config.json and
// FOLDER/adapter_model.safetensors with "base_model.model." + the layer's name in Hugging Face + ".lora_A.weight" and ".lora_B.weight". They
// belong on the model that training began with. Error(Unsupported) where the family's Hugging Face form fuses, permutes or transposes an adapted
// matrix: PEFT has no such adapter.
void write_peft(const std::filesystem::path& folder, const LoraWeights& weights, const ir::Model& model);

}  // namespace slmc::engine
