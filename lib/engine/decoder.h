#pragma once
// The one decoder program, driven by ir::Decoder and ir::Sizes: all families run through these functions. Differentiable; the same code
// trains, evaluates and collects statistics. Activations are [B, T, features] in the weights' dtype; rotary angles in fp64, cos and sin
// rounded once; softmax statistics in fp32 or better.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "engine/hooks.h"
#include "engine/weights.h"
#include "ir/model.h"

namespace slmc::engine {

struct Arch {                      // what the program needs besides weights
  ir::Decoder options;
  ir::Sizes sizes;
};
Arch arch_of(const ir::Model& model);

// A model ready to run.
struct Loaded {
  Arch arch;
  PlainWeights weights;
};
Loaded load(const ir::Model& model, at::ScalarType dtype, at::Device device, Storage storage = Storage::Mapped);

// A model as tasks and measurements see it: how its weights act is theirs (weights.h). Refers to what it was made of.
struct ModelRef {
  const Arch& arch;
  Weights& weights;
  ModelRef(const Arch& of, Weights& by) : arch(of), weights(by) {}
  ModelRef(Loaded& loaded) : arch(loaded.arch), weights(loaded.weights) {}       // implicit: a loaded model is one
};

// Keys and values of the tokens seen so far, per block; grows by doubling up to `capacity` tokens.
class KvCache {
 public:
  KvCache(const Arch& arch, std::int64_t batch, std::int64_t capacity, at::ScalarType dtype, at::Device device);
  std::int64_t length() const { return length_; }
  void advance(std::int64_t tokens) { length_ += tokens; }
  void truncate(std::int64_t length) { length_ = length; }
  // Appends k, v [B, kv, T, d] of one block; gives all of them so far.
  std::pair<at::Tensor, at::Tensor> append(std::int64_t block, const at::Tensor& k, const at::Tensor& v);

 private:
  std::vector<at::Tensor> k_, v_;
  std::int64_t length_ = 0, capacity_ = 0;
};

// What one pass carries along; every pointer may be null.
struct Pass {
  const Gates* gates = nullptr;
  Tap* tap = nullptr;
  Edit* edit = nullptr;
  KvCache* cache = nullptr;        // then T new tokens follow cache->length() old ones; the caller advances it after the last block
  at::Tensor document;             // [B, T] int64 or undefined: attention stays inside equal numbers
  bool recompute = false;          // training: keep only block inputs, run each block again in backward
};

at::Tensor embed(const Arch& arch, Weights& weights, const at::Tensor& ids, const Pass& pass = {});   // ids [B, T] -> [B, T, hidden]
// Blocks first .. last-1 of the residual stream x [B, T, hidden].
at::Tensor run_blocks(const Arch& arch, Weights& weights, at::Tensor x, std::int64_t first, std::int64_t last, const Pass& pass = {});
at::Tensor final_norm(const Arch& arch, Weights& weights, const at::Tensor& x, const Pass& pass = {});
at::Tensor head_weight(const Arch& arch, Weights& weights);                                            // [vocab, hidden]; the embedding when tied
at::Tensor logits(const Arch& arch, Weights& weights, const at::Tensor& normed, const Pass& pass = {});  // [.., hidden] -> [.., vocab]

// embed, all blocks, final_norm: [B, T] -> [B, T, hidden]. Whoever needs logits takes them in chunks of rows.
at::Tensor hidden_states(const Arch& arch, Weights& weights, const at::Tensor& ids, const Pass& pass = {});

}  // namespace slmc::engine
