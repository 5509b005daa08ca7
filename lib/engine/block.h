#pragma once
// One block of the decoder: how weights, gates, taps and edits come together. decoder.cpp runs it whole, stream.cpp step by step.
#include <ATen/core/Tensor.h>

#include <initializer_list>
#include <string>

#include "engine/decoder.h"
#include "engine/layers.h"

namespace slmc::engine {

// Tables that many blocks of one pass share.
struct Shared {
  RopeTable rope;
  Visible all, window;                     // of blocks without and with a sliding window
};
// Those of one block for tokens 0 .. T-1 of x [B, T, hidden], without documents.
Shared shared_of(const Arch& arch, Weights& weights, const at::Tensor& x, std::int64_t block);

// A value passing a site: taps see it, edits may replace it.
at::Tensor at_site(const Pass& pass, const std::string& site, at::Tensor value);

// A gate as the decoder uses it, in the dtype and on the device of x; undefined when there is none.
at::Tensor gate_of(const Gates* gates, const std::string& axis, const at::Tensor& x);

// Whether a gate shuts everything behind it, for good: no open entry and no gradient that could open one.
bool is_closed(const at::Tensor& gate);

struct Block {
  const Arch& arch;
  Weights& weights;
  const Pass& pass;
  const Gates* gates;                      // pass.gates, or their copies inside a checkpoint
  const Shared& shared;
  std::int64_t number;

  at::Tensor forward(const at::Tensor& x) const;      // [B, T, hidden] -> same; between the sites block.in and block.out

  // Its steps. `part` is "attn.norm", "ffn.down": a logical name without "block.{i}.".
  at::Tensor norm(const char* part, const at::Tensor& x) const;           // over the residual stream, gated by `hidden`
  at::Tensor mix(const at::Tensor& normed) const;                         // attention up to what attn.o reads, [B, T, heads * vd]
  at::Tensor units(const at::Tensor& normed) const;                       // feed-forward part up to what ffn.down reads, [B, T, ffn]
  at::Tensor linear(const char* part, const at::Tensor& x) const;         // with its sites .in and .out

 private:
  const ir::BlockSizes& sizes() const { return arch.sizes.blocks[static_cast<std::size_t>(number)]; }
  std::string name(const char* part) const;                               // "block.3.attn.q"
  at::Tensor gate(const char* axis, const at::Tensor& x) const;           // "block.3.ffn"
  bool any_closed(std::initializer_list<const char*> axes, const at::Tensor& x) const;
  at::Tensor heads(const char* part, const char* norm, const at::Tensor& normed, std::int64_t count, const at::Tensor& entries) const;
  at::Tensor open_heads(const at::Tensor& y) const;
};

}  // namespace slmc::engine
