#include "engine/decoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/log.h>
#include <ATen/ops/nonzero.h>

#include "engine/block.h"
#include "engine/checkpoint.h"

namespace slmc::engine {
namespace {

std::int64_t past_tokens(const Pass& pass) { return pass.cache ? pass.cache->length() : 0; }

void require_ids(const at::Tensor& ids, std::int64_t vocab) {
  if (!ids.is_cpu() || ids.numel() == 0) return;          // on a GPU the kernel itself refuses them
  const auto least = ids.min().item<std::int64_t>(), most = ids.max().item<std::int64_t>();
  if (least < 0 || most >= vocab) {
    throw Error(ErrorKind::Data, "a token id must be in 0 .. " + std::to_string(vocab - 1) + ", but is " +
                                     std::to_string(least < 0 ? least : most), "is this the tokenizer that belongs to the model?");
  }
}

// Rows of the learned positions start .. start + tokens - 1 behind the offset, [tokens, hidden]. A gate leaves out closed rows: the t-th
// token stands at the t-th open one behind the offset.
at::Tensor positions(const Arch& arch, Weights& weights, std::int64_t start, std::int64_t tokens, const Pass& pass, const at::Tensor& x) {
  at::Tensor table = weights.tensor("pos");
  if (const at::Tensor gate = gate_of(pass.gates, "pos", x); gate.defined()) {
    const at::Tensor open = gate.nonzero().squeeze(1);
    table = table.index_select(0, open) * gate.index_select(0, open).unsqueeze(1);
  }
  const std::int64_t offset = arch.options.pos_offset;
  if (start + tokens > table.size(0) - offset) {
    throw Error(ErrorKind::Usage, "the text must be at most " + std::to_string(table.size(0) - offset) +
                                      " tokens, the number of positions that the model has learned, but is " + std::to_string(start + tokens));
  }
  return table.narrow(0, offset + start, tokens);
}

// Rotary tables of one pass: blocks with equal frequencies share one.
class Ropes {
 public:
  Ropes(const Arch& arch, Weights& weights, const at::Tensor& x, std::int64_t start)
      : arch_(arch), weights_(weights), x_(x), start_(start) {}

  RopeTable of(std::int64_t block) {
    if (arch_.sizes.blocks[static_cast<std::size_t>(block)].freq == 0) return {};
    const at::Tensor frequencies = weights_.tensor("block." + std::to_string(block) + ".attn.rope");
    if (!last_.defined() || !last_.equal(frequencies)) {
      table_ = rope_table(frequencies, arch_.options.rope_factor, start_, x_.size(1), x_.scalar_type(), x_.device());
      last_ = frequencies;
    }
    return table_;
  }

 private:
  const Arch& arch_;
  Weights& weights_;
  const at::Tensor& x_;
  std::int64_t start_;
  at::Tensor last_;
  RopeTable table_;
};

// A block inside a checkpoint sees its taps' values twice and without gradients, so blocks with wanted inner sites are run plainly.
bool wants_inside(const Pass& pass, std::int64_t block) {
  const std::string prefix = "block." + std::to_string(block) + ".";
  for (const char* site : {"mid", "attn.q.in", "attn.q.out", "attn.k.in", "attn.k.out", "attn.v.in", "attn.v.out", "attn.o.in",
                           "attn.o.out", "ffn.gate.in", "ffn.gate.out", "ffn.up.in", "ffn.up.out", "ffn.down.in", "ffn.down.out"}) {
    if (pass.tap && pass.tap->wants(prefix + site)) return true;
  }
  return false;
}

at::Tensor run_recomputed(const Arch& arch, Weights& weights, const at::Tensor& x, const Pass& pass, const Shared& shared,
                          std::int64_t number) {
  std::vector<at::Tensor> inputs = {x};
  std::vector<std::string> axes;
  if (pass.gates) {
    for (const auto& [axis, gate] : pass.gates->of) axes.push_back(axis), inputs.push_back(gate);
  }
  const auto body = [&arch, &weights, pass, shared, axes, number](const std::vector<at::Tensor>& in) {
    Gates gates;
    for (std::size_t i = 0; i < axes.size(); ++i) gates.of[axes[i]] = in[i + 1];
    return Block{arch, weights, pass, &gates, shared, number}.forward(in[0]);
  };
  return checkpoint(body, inputs);
}

}  // namespace

Shared shared_of(const Arch& arch, Weights& weights, const at::Tensor& x, std::int64_t block) {
  Shared shared;
  shared.rope = Ropes(arch, weights, x, 0).of(block);
  Sight sight{x.size(1), x.size(1), std::nullopt, {}};
  shared.all = Visible(sight);
  sight.window = arch.options.window;
  if (sight.window) shared.window = Visible(sight);
  return shared;
}

Arch arch_of(const ir::Model& model) { return {model.decoder(), model.sizes()}; }

Loaded load(const ir::Model& model, at::ScalarType dtype, at::Device device, Storage storage) {
  return {arch_of(model), PlainWeights(model, dtype, device, storage)};
}

at::Tensor embed(const Arch& arch, Weights& weights, const at::Tensor& ids, const Pass& pass) {
  require_ids(ids, arch.sizes.vocab);
  const at::Tensor x = at::embedding(weights.tensor("embed"), ids);
  return weights.has("pos") ? x + positions(arch, weights, past_tokens(pass), ids.size(1), pass, x) : x;
}

at::Tensor run_blocks(const Arch& arch, Weights& weights, at::Tensor x, std::int64_t first, std::int64_t last, const Pass& pass) {
  SLMC_CHECK(0 <= first && first <= last && last <= static_cast<std::int64_t>(arch.sizes.blocks.size()));
  SLMC_CHECK(!(pass.cache && (pass.document.defined() || at::GradMode::is_enabled())));
  const std::int64_t past = past_tokens(pass);
  Sight sight{x.size(1), past + x.size(1), std::nullopt, pass.document};
  Shared shared;
  shared.all = Visible(sight);
  sight.window = arch.options.window;
  if (sight.window) shared.window = Visible(sight);
  Ropes ropes(arch, weights, x, past);
  const bool recompute = pass.recompute && at::GradMode::is_enabled();
  for (std::int64_t i = first; i < last; ++i) {
    const std::string prefix = "block." + std::to_string(i);
    shared.rope = ropes.of(i);
    x = at_site(pass, prefix + ".in", x);
    x = recompute && !wants_inside(pass, i) ? run_recomputed(arch, weights, x, pass, shared, i)
                                            : Block{arch, weights, pass, pass.gates, shared, i}.forward(x);
    x = at_site(pass, prefix + ".out", x);
  }
  return x;
}

at::Tensor final_norm(const Arch& arch, Weights& weights, const at::Tensor& x, const Pass& pass) {
  const at::Tensor hidden = gate_of(pass.gates, "hidden", x);
  const at::Tensor bias = weights.has("norm.bias") ? weights.tensor("norm.bias") : at::Tensor();
  const at::Tensor y = normalize(arch.options.norm, x, weights.tensor("norm"), bias, arch.options.norm_eps, hidden);
  return at_site(pass, "head.in", hidden.defined() ? y * hidden : y);
}

at::Tensor head_weight(const Arch& arch, Weights& weights) { return weights.tensor(arch.options.tied_head ? "embed" : "head"); }

at::Tensor logits(const Arch& arch, Weights& weights, const at::Tensor& normed, const Pass& pass) {
  const at::Tensor z = arch.options.tied_head ? at::linear(normed, head_weight(arch, weights)) : weights.linear("head", normed);
  const at::Tensor vocab = gate_of(pass.gates, "vocab", z);
  return vocab.defined() ? z + vocab.log() : z;
}

at::Tensor hidden_states(const Arch& arch, Weights& weights, const at::Tensor& ids, const Pass& pass) {
  const at::Tensor x = embed(arch, weights, ids, pass);
  return final_norm(arch, weights, run_blocks(arch, weights, x, 0, static_cast<std::int64_t>(arch.sizes.blocks.size()), pass), pass);
}

}  // namespace slmc::engine
