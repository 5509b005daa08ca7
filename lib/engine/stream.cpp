#include "engine/stream.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>


#include "core/error.h"
#include "engine/block.h"
#include "engine/pieces.h"

namespace slmc::engine {
namespace {

at::Tensor like(const at::Tensor& x, std::int64_t width) { return at::empty({x.size(0) * x.size(1), width}, x.options()); }

// Rows of window i in [n * seq, width], as [1, seq, width].
at::Tensor window(const at::Tensor& inputs, const at::Tensor& x, std::int64_t i) {
  return inputs.narrow(0, i * x.size(1), x.size(1)).unsqueeze(0);
}

// One step for all windows: compute(block, window of x [1, seq, hidden], i). Tables are shared, they depend on seq only.
template <typename F>
void compute(const Arch& arch, Weights& weights, std::int64_t number, const at::Tensor& x, const F& body) {
  const at::NoGradGuard no_grad;
  const Pass pass;
  const Shared shared = shared_of(arch, weights, x, number);
  const Block block{arch, weights, pass, nullptr, shared, number};
  for_windows(x.size(0), x.device(), [&](std::int64_t i) { body(block, x.narrow(0, i, 1), i); });
}

}  // namespace

void for_windows(std::int64_t windows, at::Device device, const std::function<void(std::int64_t)>& body) {
  const auto one = [&](std::int64_t i) {
    const at::NoGradGuard no_grad;                          // per thread
    body(i);
  };
  if (device.is_cpu()) return for_pieces(windows, one);
  for (std::int64_t i = 0; i < windows; ++i) one(i);
}

at::Tensor embed_windows(const Arch& arch, Weights& outside, const at::Tensor& windows, at::Device device) {
  const at::NoGradGuard no_grad;
  return embed(arch, outside, windows.to(device)).to(at::kFloat);
}

void run_windows(const Arch& arch, Weights& weights, at::Tensor& x, std::int64_t first, std::int64_t last) {
  for_windows(x.size(0), x.device(), [&](std::int64_t i) {
    at::Tensor part = x.narrow(0, i, 1);
    part.copy_(run_blocks(arch, weights, part, first, last));
  });
}

BlockSteps::BlockSteps(const Arch& arch, Weights& weights, std::int64_t block, at::Tensor x)
    : arch_(arch), weights_(weights), block_(block), x_(std::move(x)) {
  start();
}

void BlockSteps::start() {
  const ir::BlockSizes& sizes = arch_.sizes.blocks[static_cast<std::size_t>(block_)];
  if (sizes.heads() * sizes.vd == 0) return start_ffn();
  step_ = Step::Qkv;
  inputs_ = like(x_, x_.size(2));
  if (arch_.options.parallel_residual && sizes.ffn > 0) ffn_inputs_ = like(x_, x_.size(2));
  compute(arch_, weights_, block_, x_, [&](const Block& block, const at::Tensor& x, std::int64_t i) {
    window(inputs_, x_, i).copy_(block.norm("attn.norm", x));
    if (ffn_inputs_.defined()) window(ffn_inputs_, x_, i).copy_(block.norm("ffn.norm", x));
  });
}

void BlockSteps::start_ffn() {
  if (arch_.sizes.blocks[static_cast<std::size_t>(block_)].ffn == 0) {
    step_ = Step::Done;
    inputs_ = at::Tensor();
    return;
  }
  step_ = Step::Up;
  if (ffn_inputs_.defined()) {
    inputs_ = std::move(ffn_inputs_);
    return;
  }
  inputs_ = like(x_, x_.size(2));
  compute(arch_, weights_, block_, x_, [&](const Block& block, const at::Tensor& x, std::int64_t i) {
    window(inputs_, x_, i).copy_(block.norm("ffn.norm", x));
  });
}

std::vector<std::string> BlockSteps::linears() const {
  const std::string prefix = "block." + std::to_string(block_) + ".";
  switch (step_) {
    case Step::Qkv: return {prefix + "attn.q", prefix + "attn.k", prefix + "attn.v"};
    case Step::Out: return {prefix + "attn.o"};
    case Step::Up:
      if (!arch_.options.gated) return {prefix + "ffn.up"};
      return {prefix + "ffn.gate", prefix + "ffn.up"};
    case Step::Down: return {prefix + "ffn.down"};
    default: return {};
  }
}

void BlockSteps::next() {
  SLMC_CHECK(!done());
  const ir::BlockSizes& sizes = arch_.sizes.blocks[static_cast<std::size_t>(block_)];
  const bool first_half = step_ == Step::Qkv || step_ == Step::Up;
  if (first_half) {
    const bool attention = step_ == Step::Qkv;
    const at::Tensor before = std::move(inputs_);
    inputs_ = like(x_, attention ? sizes.heads() * sizes.vd : sizes.ffn);
    compute(arch_, weights_, block_, x_, [&](const Block& block, const at::Tensor&, std::int64_t i) {
      const at::Tensor normed = window(before, x_, i);
      window(inputs_, x_, i).copy_(attention ? block.mix(normed) : block.units(normed));
    });
    step_ = attention ? Step::Out : Step::Down;
    return;
  }
  compute(arch_, weights_, block_, x_, [&](const Block& block, const at::Tensor& x, std::int64_t i) {
    at::Tensor(x).add_(block.linear(step_ == Step::Out ? "attn.o" : "ffn.down", window(inputs_, x_, i)));
  });
  if (step_ == Step::Out) return start_ffn();
  step_ = Step::Done;
  inputs_ = at::Tensor();
}

}  // namespace slmc::engine
