#pragma once
// The residual stream of many windows on its way through a block, step by step: at each step the inputs of some linear maps are
// there for all windows, and those maps' weights may be changed before the stream goes on through them. This is what GPTQ, refits and
// the statistics pass stand on: one forward pass, whose later inputs already feel what was done to earlier weights.
//
//   step   linears that read the inputs      inputs
//   0      attn.q  attn.k  attn.v            the stream behind attn.norm
//   1      attn.o                            heads side by side
//   2      ffn.gate  ffn.up                  the stream behind ffn.norm
//   3      ffn.down                          act(gate) * up
//
// Each window is computed on one thread: the same bytes for any number of threads.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/decoder.h"

namespace slmc::engine {

// body(i) for each of `windows` windows that lie on `device`: on the CPU each on one thread, elsewhere one after the other. No gradients.
void for_windows(std::int64_t windows, at::Device device, const std::function<void(std::int64_t)>& body);

// Token embeddings of windows [n, seq] int64 -> [n, seq, hidden] fp32 on `device`. Reads only what lies outside the blocks.
at::Tensor embed_windows(const Arch& arch, Weights& outside, const at::Tensor& windows, at::Device device);

// x [n, seq, hidden] through blocks first .. last-1, in place.
void run_windows(const Arch& arch, Weights& weights, at::Tensor& x, std::int64_t first, std::int64_t last);

class BlockSteps {
 public:
  // x [n, seq, hidden] holds the stream and is written in place; do not touch it before done(). Absent parts have no steps.
  BlockSteps(const Arch& arch, Weights& weights, std::int64_t block, at::Tensor x);
  bool done() const { return step_ == Step::Done; }
  std::vector<std::string> linears() const;                 // "block.3.attn.q", ...: logical names
  const at::Tensor& inputs() const { return inputs_; }      // [n * seq, in]
  void next();                                              // through the linears as they are now

 private:
  enum class Step { Qkv, Out, Up, Down, Done };
  void start();
  void start_ffn();

  const Arch& arch_;
  Weights& weights_;
  std::int64_t block_;
  at::Tensor x_, inputs_;
  at::Tensor ffn_inputs_;                                   // parallel residual: taken from x before attention is added
  Step step_ = Step::Qkv;
};

}  // namespace slmc::engine
