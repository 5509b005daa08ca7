#pragma once
// Looking at and changing what flows through the decoder. Sites are named after tensors and blocks:
//   block.{i}.attn.q.in   input of a linear, [B, T, in]        (q, k, v share the same value; so do gate and up)
//   block.{i}.attn.o.out  output of a linear, [B, T, out]
//   block.{i}.in | mid | out   residual stream before, between and after the two parts, [B, T, hidden]
//   head.in               after the last norm, [B, T, hidden]
// Attention probabilities are not observable: they are never formed.
#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

namespace slmc::engine {

// A value seen at a site. Must not change it; may keep it.
class Tap {
 public:
  virtual ~Tap() = default;
  virtual bool wants(const std::string& site) const = 0;
  virtual void see(const std::string& site, const at::Tensor& value) = 0;
};

// A value replaced at a site; must keep its shape.
class Edit {
 public:
  virtual ~Edit() = default;
  virtual bool wants(const std::string& site) const = 0;
  virtual at::Tensor change(const std::string& site, const at::Tensor& value) = 0;
};

// Gates over axes, by axis name: "hidden" [hidden], "vocab" [vocab], "block" [blocks], "block.{i}.ffn" [ffn], "block.{i}.kv" [kv],
// "block.{i}.kv.q" [kv, q], "block.{i}.freq", "block.{i}.pass", "block.{i}.vd", "pos" [pos].
// "hidden" is multiplied in behind every norm of the residual stream, "block" into what a block's parts add, inner axes into what the next
// linear map reads (freq and pass: into queries), log "vocab" is added to logits: closed rows are left out of softmax. Norms over a gated
// axis take statistics over the open coordinates, weighted by the gate; closed positions are skipped; a part whose gate is all zero (and
// needs no gradient) is left out with its biases. With gates in {0, 1}, gating equals cutting.
struct Gates {
  std::map<std::string, at::Tensor> of;
  const at::Tensor* find(const std::string& axis) const {
    auto it = of.find(axis);
    return it == of.end() ? nullptr : &it->second;
  }
};

}  // namespace slmc::engine
