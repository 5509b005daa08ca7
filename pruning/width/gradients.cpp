#include "pruning/width/gradients.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <string>

#include "core/cancel.h"
#include "core/error.h"
#include "engine/block.h"
#include "engine/pieces.h"
#include "engine/stream.h"
#include "engine/train/cross_entropy.h"
#include "engine/train/head_loss.h"
#include "engine/train/task.h"

namespace slmc::pruning {
namespace {

constexpr std::int64_t kRowsDrawn = 64;            // labels drawn together: one tile of probabilities is 64 vocab fp64

using Named = std::map<std::string, at::Tensor>;

at::Tensor window(const at::Tensor& all, std::int64_t i) { return all.narrow(0, i, 1); }

// body(i) gives the values of window i, computed on one thread each; take(i, values) gets them in order.
void in_order(std::int64_t windows, const std::function<Named(std::int64_t)>& body, const std::function<void(std::int64_t, const Named&)>& take) {
  const std::int64_t batch = at::get_num_threads();
  for (std::int64_t first = 0; first < windows; first += batch) {
    std::vector<Named> each(static_cast<std::size_t>(std::min(batch, windows - first)));
    engine::for_pieces(static_cast<std::int64_t>(each.size()), [&](std::int64_t i) { each[static_cast<std::size_t>(i)] = body(first + i); });
    for (std::size_t i = 0; i < each.size(); ++i) take(first + static_cast<std::int64_t>(i), each[i]);
  }
}

void add(Named& sums, const std::string& name, const at::Tensor& value) {
  if (auto [it, fresh] = sums.try_emplace(name, value); !fresh) it->second = it->second + value;
}

// d L / d inputs for dL/dy = d; undefined where y does not depend on one.
std::vector<at::Tensor> backward(const at::Tensor& y, const at::Tensor& d, const std::vector<at::Tensor>& inputs) {
  return torch::autograd::grad({y}, inputs, {d}, false, false, true);
}

// The inputs of all blocks, asked for from the last one to the first: every stride-th is kept, those between are made again.
class Stream {
 public:
  Stream(const ir::Model& model, const engine::Arch& arch, at::Tensor start, at::Device device)
      : model_(model), arch_(arch), device_(device), stride_(std::max<std::int64_t>(1, std::llround(std::sqrt(model.blocks())))) {
    at::Tensor x = std::move(start);
    for (std::int64_t i = 0; i < model.blocks(); ++i) {
      if (i % stride_ == 0) kept_.push_back(x.clone());
      x = through(i, x);
    }
    end_ = x;
  }
  at::Tensor take_end() { return std::move(end_); }

  // [n, seq, hidden]; the caller goes downwards.
  at::Tensor input_of(std::int64_t block) {
    if (run_.empty()) {
      run_.push_back(std::move(kept_.back()));
      kept_.pop_back();
      for (std::int64_t i = block / stride_ * stride_; i < block; ++i) run_.push_back(through(i, run_.back().clone()));
    }
    at::Tensor x = std::move(run_.back());
    run_.pop_back();
    return x;
  }

 private:
  at::Tensor through(std::int64_t block, at::Tensor x) {
    cancel_point("nothing was written");
    engine::PlainWeights weights = engine::load_block(model_, block, at::kFloat, device_, engine::Storage::Mapped);
    engine::run_windows(arch_, weights, x, block, block + 1);
    return x;
  }

  const ir::Model& model_;
  const engine::Arch& arch_;
  at::Device device_;
  std::int64_t stride_;
  std::vector<at::Tensor> kept_, run_;
  at::Tensor end_;
};

// One label for each row of normed [rows, hidden], drawn from softmax(normed headᵀ): [rows] int64.
at::Tensor drawn_labels(const at::Tensor& normed, const at::Tensor& head, const Rng& rng) {
  const at::NoGradGuard no_grad;
  const std::int64_t rows = normed.size(0);
  at::Tensor labels = at::empty({rows}, at::kLong), place = at::empty({rows, 1}, at::kDouble);
  for (std::int64_t i = 0; i < rows; ++i) place.mutable_data_ptr<double>()[i] = rng.uniform(static_cast<std::uint64_t>(i));
  for (std::int64_t first = 0; first < rows; first += kRowsDrawn) {
    const std::int64_t count = std::min(kRowsDrawn, rows - first);
    const at::Tensor sums = at::softmax(at::mm(normed.narrow(0, first, count), head.t()), 1, at::kDouble).cumsum(1).cpu();
    const at::Tensor wanted = place.narrow(0, first, count) * sums.select(1, head.size(0) - 1).unsqueeze(1);
    labels.narrow(0, first, count).copy_(at::searchsorted(sums, wanted, false, true).squeeze(1).clamp_max(head.size(0) - 1));
  }
  return labels.to(normed.device());
}

class Collector {
 public:
  Collector(const ir::Model& model, const at::Tensor& windows, GradientScore what, bool hidden, std::uint64_t seed, at::Device device)
      : model_(model), arch_(engine::arch_of(model)), windows_(windows.to(device)), what_(what), hidden_(hidden), seed_(seed), device_(device) {
    SLMC_CHECK(!hidden || kl() || what == GradientScore::Vector || what == GradientScore::Element1);
    out_.blocks.resize(static_cast<std::size_t>(model.blocks()));
  }

  GradientScores run(stage::Events& events) {
    engine::PlainWeights outside = engine::load_block(model_, -1, at::kFloat, device_, engine::Storage::Mapped);
    Stream stream(model_, arch_, engine::embed_windows(arch_, outside, windows_, device_), device_);
    gradient_ = stream.take_end();                 // becomes dL/dx in place
    if (kl() && hidden_) hidden_gates_ = at::zeros({count(), arch_.sizes.hidden}, at::kDouble);
    start(outside);
    for (std::int64_t i = model_.blocks(); i-- > 0;) {
      cancel_point("nothing was written");
      block(i, stream.input_of(i));
      require_finite(i);
      events.progress("blocks of gradients", model_.blocks() - i, model_.blocks());
    }
    finish(outside);
    return std::move(out_);
  }

 private:
  bool kl() const { return what_ == GradientScore::Kl; }
  bool squares() const { return what_ == GradientScore::Element2 || what_ == GradientScore::Mixed; }
  std::int64_t count() const { return windows_.size(0); }

  void require_finite(std::int64_t block) const {
    if (std::isfinite(gradient_.sum().item<double>())) return;
    throw Error(ErrorKind::Numeric, "the gradient at the input of block " + std::to_string(block) + " must be finite, but is not", "`slmc verify` looks at the weights");
  }

  at::Tensor hidden_gate() const { return at::ones({arch_.sizes.hidden}, gradient_.options()); }

  // From the stream's end to the loss and back. Gradients of head and last norm only where `hidden` asks for them.
  void start(engine::PlainWeights& outside) {
    const std::string head_name = arch_.options.tied_head ? "embed" : "head";
    const engine::CrossEntropy loss;
    const auto body = [&](std::int64_t i) {
      const at::AutoGradMode record(true);
      const at::Tensor x = window(gradient_, i).detach().requires_grad_();
      engine::PlainWeights mine = outside;
      std::vector<at::Tensor> inputs = {x};
      std::vector<std::string> names = {"x"};
      engine::Gates gates;
      if (hidden_ && kl()) {
        inputs.push_back(gates.of["hidden"] = hidden_gate().requires_grad_());
        names.push_back("hidden");
      }
      for (const std::string& name : {head_name, std::string("norm")}) {
        if (!hidden_ || kl()) break;
        inputs.push_back(mine.all()[name] = outside.tensor(name).detach().requires_grad_());
        names.push_back(name);
      }
      engine::Pass pass;
      pass.gates = &gates;
      const at::Tensor normed = engine::final_norm(arch_, mine, x, pass), head = engine::head_weight(arch_, mine);
      const at::Tensor targets = kl() ? drawn_labels(normed[0].detach(), head, Rng(derive_seed(seed_, "labels"), static_cast<std::uint64_t>(i)))
                                      : engine::next_tokens({window(windows_, i), {}})[0];
      const double scale = kl() ? 1.0 : 1.0 / static_cast<double>(windows_.size(1) - 1);
      const engine::HeadLoss out = engine::head_loss({.hidden = normed[0], .head = head, .target = targets, .scale = scale}, loss);
      const std::vector<at::Tensor> d = backward(out.loss, at::ones({}, out.loss.options()), inputs);
      Named values;
      for (std::size_t k = 0; k < d.size(); ++k) values[names[k]] = d[k];
      return values;
    };
    in_order(count(), body, [&](std::int64_t i, const Named& values) { take(i, values, outside_); });
  }

  // What every step gives: dL/dx, gradients of the gate over `hidden`, gradients of weights.
  void take(std::int64_t i, const Named& values, Named& sums) {
    for (const auto& [name, value] : values) {
      if (!value.defined()) continue;
      if (name == "x") {
        window(gradient_, i).copy_(value);
      } else if (name == "hidden") {
        hidden_gates_[i].add_(value.cpu().to(at::kDouble));
      } else {
        add(sums, name, value);
        if (squares()) add(sums, name + ".square", value.square());
      }
    }
  }

  void block(std::int64_t number, const at::Tensor& x) {
    engine::PlainWeights weights = engine::load_block(model_, number, at::kFloat, device_, engine::Storage::Mapped);
    const std::string prefix = "block." + std::to_string(number) + ".";
    const ir::BlockSizes& sizes = arch_.sizes.blocks[static_cast<std::size_t>(number)];
    engine::Gates open;
    if (kl() && sizes.ffn > 0) open.of[prefix + "ffn"] = at::ones({sizes.ffn}, x.options());
    if (kl() && sizes.heads() > 0) open.of[prefix + "kv.q"] = at::ones({sizes.kv, sizes.q}, x.options());
    if (kl() && hidden_) open.of["hidden"] = hidden_gate();
    Named sums, squares;                           // of weights; of gates
    in_order(count(), [&](std::int64_t i) { return through(number, weights, open, window(x, i), window(gradient_, i)); },
             [&](std::int64_t i, const Named& values) {
               Named rest = values;
               for (const char* axis : {"ffn", "kv.q"}) {
                 const auto it = rest.find(prefix + axis);
                 if (it == rest.end()) continue;
                 const at::Tensor g = it->second.cpu().to(at::kDouble);
                 add(squares, axis, g.square());
                 if (g.dim() == 2) add(squares, "kv", g.sum(1).square());
                 rest.erase(it);
               }
               take(i, rest, sums);
             });
    kl() ? score_gates(number, squares) : score_weights(number, weights, sums);
  }

  // One window through one block and back: dL/dx as "x", and dL/d of the block's weights, or of its gates.
  Named through(std::int64_t number, engine::PlainWeights& weights, const engine::Gates& open, const at::Tensor& at, const at::Tensor& d) {
    const at::AutoGradMode record(true);
    const at::Tensor x = at.detach().requires_grad_();
    std::vector<at::Tensor> inputs = {x};
    std::vector<std::string> names = {"x"};
    engine::PlainWeights mine = weights;
    for (auto& [name, t] : mine.all()) {
      if (kl() || !t.is_floating_point() || name.ends_with(".rope")) continue;
      inputs.push_back(t = t.detach().requires_grad_());
      names.push_back(name);
    }
    engine::Gates gates;
    for (const auto& [axis, gate] : open.of) {
      inputs.push_back(gates.of[axis] = gate.detach().requires_grad_());
      names.push_back(axis);
    }
    const engine::Pass pass;
    const engine::Shared shared = engine::shared_of(arch_, mine, x, number);
    const at::Tensor y = engine::Block{arch_, mine, pass, &gates, shared, number}.forward(x);
    const std::vector<at::Tensor> g = backward(y, d, inputs);
    Named out;
    for (std::size_t i = 0; i < g.size(); ++i) {
      if (g[i].defined()) out[names[i]] = g[i];
    }
    return out;
  }

  // 1/2 the mean over windows of squares of sums over positions, per token.
  at::Tensor fisher(const at::Tensor& squares) const { return squares / static_cast<double>(2 * count() * windows_.size(1)); }

  void score_gates(std::int64_t number, const Named& squares) {
    BlockGradients& out = out_.blocks[static_cast<std::size_t>(number)];
    if (squares.contains("ffn")) out.ffn = {fisher(squares.at("ffn"))};
    if (squares.contains("kv")) out.attention = {fisher(squares.at("kv")), fisher(squares.at("kv.q").flatten())};
  }

  at::Tensor scores_of(const std::string& name, const at::Tensor& weight, const Named& sums, bool rows) const {
    const auto n = static_cast<double>(count());
    const at::Tensor g = sums.contains(name) ? sums.at(name) / n : at::zeros(weight.sizes(), weight.options());
    const at::Tensor f = !squares() ? at::Tensor() : sums.contains(name) ? sums.at(name + ".square") / n : g;
    return tensor_scores(what_, weight, g, f, rows);
  }

  void score_weights(std::int64_t number, engine::PlainWeights& weights, const Named& sums) {
    BlockGradients& out = out_.blocks[static_cast<std::size_t>(number)];
    const auto one = [&](const std::string& part, bool in_ffn) {
      const std::string name = "block." + std::to_string(number) + "." + part;
      if (!weights.has(name)) return;
      const at::Tensor w = weights.tensor(name);
      const bool writes = part == "attn.o" || part == "ffn.down";       // its rows are `hidden`, its columns are cut
      (in_ffn ? out.ffn : out.attention).push_back(scores_of(name, w, sums, !writes));
      if (hidden_) out_.hidden.push_back(scores_of(name, w, sums, writes));
    };
    for (const char* part : {"ffn.gate", "ffn.up", "ffn.down"}) one(part, true);
    for (const char* part : {"attn.q", "attn.k", "attn.v", "attn.o"}) one(part, false);
    for (const char* part : {".attn.norm", ".ffn.norm"}) {
      const std::string name = "block." + std::to_string(number) + part;
      if (hidden_ && weights.has(name)) out_.hidden.push_back(scores_of(name, weights.tensor(name).unsqueeze(0), rows_of(sums, name), false));
    }
  }

  // A gain as a matrix of one row.
  static Named rows_of(const Named& sums, const std::string& name) {
    return sums.contains(name) ? Named{{name, sums.at(name).unsqueeze(0)}} : Named{};
  }

  // The stream's start: token embeddings, which a tied head shares, and learned positions.
  void finish(engine::PlainWeights& outside) {
    if (!hidden_) return;
    if (kl()) {
      out_.hidden = {fisher(hidden_gates_.square().sum(0))};
      return;
    }
    const at::Tensor embed = outside.tensor("embed");
    at::Tensor sum = outside_.contains("embed") ? outside_.at("embed").clone() : at::zeros(embed.sizes(), embed.options());
    sum.index_add_(0, windows_.flatten(), gradient_.flatten(0, 1));
    outside_["embed"] = sum;
    if (outside.has("pos")) {
      at::Tensor positions = at::zeros(outside.tensor("pos").sizes(), embed.options());
      positions.narrow(0, 0, windows_.size(1)).copy_(gradient_.sum(0));
      outside_["pos"] = positions;
    }
    for (const char* name : {"embed", "pos", "head"}) {
      if (outside_.contains(name)) out_.hidden.push_back(scores_of(name, outside.tensor(name), outside_, false));
    }
    out_.hidden.push_back(scores_of("norm", outside.tensor("norm").unsqueeze(0), rows_of(outside_, "norm"), false));
  }

  const ir::Model& model_;
  engine::Arch arch_;
  at::Tensor windows_;
  GradientScore what_;
  bool hidden_;
  std::uint64_t seed_;
  at::Device device_;
  at::Tensor gradient_;                            // [n, seq, hidden]
  at::Tensor hidden_gates_;                        // [n, hidden] fp64: sums over all norms
  Named outside_;                                  // gradients of embed, head, norm
  GradientScores out_;
};

}  // namespace

at::Tensor tensor_scores(GradientScore what, const at::Tensor& weight, const at::Tensor& gradient, const at::Tensor& square, bool rows) {
  const at::Tensor w = weight.to(at::kCPU, at::kDouble), g = gradient.to(at::kCPU, at::kDouble);
  const auto sum = [&](const at::Tensor& t) { return t.sum(rows ? 1 : 0); };
  if (what == GradientScore::Vector) return sum(w * g).abs();
  if (what == GradientScore::Element1) return sum((w * g).abs());
  const at::Tensor second = w.square() * square.to(at::kCPU, at::kDouble);
  if (what == GradientScore::Element2) return sum(second);
  SLMC_CHECK(what == GradientScore::Mixed);
  return sum((w * g - second * 0.5).abs());
}

GradientScores gradient_scores(const ir::Model& model, const at::Tensor& windows, GradientScore what, bool hidden, std::uint64_t seed,
                               at::Device device, stage::Events& events) {
  SLMC_CHECK(what != GradientScore::None && windows.size(0) > 0 && windows.size(1) > 1);
  return Collector(model, windows, what, hidden, seed, device).run(events);
}

}  // namespace slmc::pruning
