// Scores from gradients against gradients of the whole model at once, against differences, and against the KL that they predict.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <cmath>

#include "engine/decoder.h"
#include "methods_testing.h"
#include "pruning/width/gradients.h"

namespace slmc::pruning {
namespace {

using testing_methods::random_model;
using testing_methods::random_windows;
using testing_methods::SilentEvents;

ir::Model tiny() { return random_model({.hidden = 16, .blocks = 5, .kv = 2, .q = 2, .head = 4, .ffn = 24}); }

// Mean next-token cross-entropy of the windows, in fp64, without any of the code under test.
at::Tensor loss_of(const engine::Arch& arch, engine::Weights& weights, const at::Tensor& windows) {
  const at::Tensor z = engine::logits(arch, weights, engine::hidden_states(arch, weights, windows));
  const std::int64_t last = windows.size(1) - 1;
  const at::Tensor p = at::log_softmax(z.narrow(1, 0, last), -1);
  return -p.gather(2, windows.narrow(1, 1, last).unsqueeze(2)).mean();
}

// Gradients of every tensor for each window by itself, by plain autograd over the whole model in fp64.
std::vector<std::map<std::string, at::Tensor>> each_gradient(const ir::Model& model, const at::Tensor& windows) {
  const engine::Arch arch = engine::arch_of(model);
  std::vector<std::map<std::string, at::Tensor>> out;
  for (std::int64_t i = 0; i < windows.size(0); ++i) {
    engine::PlainWeights weights(model, at::kDouble, at::kCPU);
    for (auto& [name, t] : weights.all()) {
      if (!name.ends_with(".rope")) t.requires_grad_();
    }
    loss_of(arch, weights, windows.narrow(0, i, 1)).backward();
    out.emplace_back();
    for (auto& [name, t] : weights.all()) {
      if (t.grad().defined()) out.back()[name] = t.grad();
    }
  }
  return out;
}

struct Whole {
  std::map<std::string, at::Tensor> w, g, f;
};

Whole whole_of(const ir::Model& model, const at::Tensor& windows) {
  Whole out;
  engine::PlainWeights weights(model, at::kDouble, at::kCPU);
  const auto each = each_gradient(model, windows);
  const auto n = static_cast<double>(each.size());
  for (const auto& [name, first] : each.front()) {
    out.w[name] = weights.tensor(name);
    out.g[name] = at::zeros_like(first), out.f[name] = at::zeros_like(first);
    for (const auto& window : each) {
      out.g[name].add_(window.at(name) / n);
      out.f[name].add_(window.at(name).square() / n);
    }
  }
  return out;
}

double loop(GradientScore what, const Whole& whole, const std::string& name, std::int64_t index, bool row) {
  const at::Tensor &w = whole.w.at(name), &g = whole.g.at(name), &f = whole.f.at(name);
  double sum = 0;
  for (std::int64_t j = 0; j < w.size(row ? 1 : 0); ++j) {
    const auto at = [&](const at::Tensor& t) { return (row ? t[index][j] : t[j][index]).item<double>(); };
    const double first = at(w) * at(g), second = at(w) * at(w) * at(f);
    switch (what) {
      case GradientScore::Vector: sum += first; break;
      case GradientScore::Element1: sum += std::abs(first); break;
      case GradientScore::Element2: sum += second; break;
      default: sum += std::abs(first - second / 2);
    }
  }
  return std::abs(sum);
}

void expect_loop(const at::Tensor& got, GradientScore what, const Whole& whole, const std::string& name, bool rows) {
  const double size = got.abs().max().item<double>();
  ASSERT_EQ(got.numel(), whole.w.at(name).size(rows ? 0 : 1)) << name;
  for (std::int64_t i = 0; i < got.numel(); i += 3) EXPECT_NEAR(got[i].item<double>(), loop(what, whole, name, i, rows), 3e-4 * size) << name << " " << i;
}

TEST(Gradients, BlockByBlockEqualsTheWholeModelAtOnce) {
  const ir::Model model = tiny();
  const at::Tensor windows = random_windows(model, 3, 12, 1);
  const Whole whole = whole_of(model, windows);
  SilentEvents events;
  for (const GradientScore what : {GradientScore::Vector, GradientScore::Element1, GradientScore::Element2, GradientScore::Mixed}) {
    const GradientScores got = gradient_scores(model, windows, what, false, 0, at::kCPU, events);
    ASSERT_EQ(got.blocks.size(), 5u);
    EXPECT_TRUE(got.hidden.empty());
    for (const std::int64_t b : {0, 2, 4}) {
      const std::string prefix = "block." + std::to_string(b) + ".";
      const BlockGradients& one = got.blocks[static_cast<std::size_t>(b)];
      const char* ffn[] = {"ffn.gate", "ffn.up", "ffn.down"};
      for (std::size_t i = 0; i < 3; ++i) expect_loop(one.ffn.at(i), what, whole, prefix + ffn[i], i < 2);
      const char* attention[] = {"attn.q", "attn.k", "attn.v", "attn.o"};
      for (std::size_t i = 0; i < 4; ++i) expect_loop(one.attention.at(i), what, whole, prefix + attention[i], i < 3);
    }
  }
}

TEST(Gradients, HiddenChannelsOfEveryTensorTheEmbeddingIncluded) {
  const ir::Model model = tiny();
  const at::Tensor windows = random_windows(model, 3, 12, 1);
  const Whole whole = whole_of(model, windows);
  SilentEvents events;
  for (const GradientScore what : {GradientScore::Vector, GradientScore::Element1}) {
    const GradientScores got = gradient_scores(model, windows, what, true, 0, at::kCPU, events);
    ASSERT_EQ(got.hidden.size(), 5u * 9 + 2);                           // seven maps and two norms a block, embedding, last norm
    at::Tensor sum = at::zeros_like(got.hidden[0]);
    for (const at::Tensor& t : got.hidden) sum += t;
    for (std::int64_t c = 0; c < 16; c += 5) {
      double want = 0;
      for (const auto& [name, w] : whole.w) {
        const bool rows = name.ends_with("attn.o") || name.ends_with("ffn.down");
        want += w.dim() == 1 ? std::abs(w[c].item<double>() * whole.g.at(name)[c].item<double>()) : loop(what, whole, name, c, rows);
      }
      EXPECT_NEAR(sum[c].item<double>(), want, 2e-4 * want) << c;
    }
  }
}

// The slope of the loss along a tensor's rows is what Vector sums.
TEST(Gradients, VectorIsTheSlopeOfTheLossAlongTheRow) {
  const ir::Model model = tiny();
  const at::Tensor windows = random_windows(model, 2, 10, 3);
  SilentEvents events;
  const GradientScores got = gradient_scores(model, windows, GradientScore::Vector, false, 0, at::kCPU, events);
  const engine::Arch arch = engine::arch_of(model);
  const auto loss_at = [&](double scale) {
    const at::NoGradGuard no_grad;
    engine::PlainWeights weights(model, at::kDouble, at::kCPU);
    weights.tensor("block.1.ffn.up")[7].mul_(scale);
    return loss_of(arch, weights, windows).item<double>();
  };
  const double slope = (loss_at(1 + 1e-4) - loss_at(1 - 1e-4)) / 2e-4;
  EXPECT_NEAR(got.blocks[1].ffn[1][7].item<double>(), std::abs(slope), 1e-4 * got.blocks[1].ffn[1].max().item<double>());
}

// KL(whole || gated) at a gate of 1 - e is e² times the score, to second order: many draws against the KL itself.
TEST(Gradients, KlScoresAreTheCurvatureOfTheKl) {
  const ir::Model model = tiny();
  const at::Tensor windows = random_windows(model, 512, 6, 4);
  SilentEvents events;
  const GradientScores got = gradient_scores(model, windows, GradientScore::Kl, true, 7, at::kCPU, events);
  const engine::Arch arch = engine::arch_of(model);
  engine::PlainWeights weights(model, at::kDouble, at::kCPU);
  const at::NoGradGuard no_grad;
  const auto log_probs = [&](const engine::Gates& gates) {
    engine::Pass pass;
    pass.gates = &gates;
    return at::log_softmax(engine::logits(arch, weights, engine::hidden_states(arch, weights, windows, pass)), -1);
  };
  const at::Tensor p = log_probs({});
  const auto curvature = [&](const std::string& axis, at::Tensor gate, std::initializer_list<std::int64_t> entries) {
    const double e = 1e-3;
    for (const std::int64_t i : entries) gate.view({-1})[i] = 1 - e;
    const at::Tensor q = log_probs({{{axis, gate}}});
    return (p.exp() * (p - q)).sum(-1).mean().item<double>() / (e * e);
  };
  // The spread of a mean of 512 squares is some 1/16 of it; 0.25 is four of these. Wrong factors of 2 or of 6 tokens are seen.
  for (const std::int64_t i : {0, 5, 11}) {
    const double want = curvature("block.2.ffn", at::ones({24}, at::kDouble), {i});
    EXPECT_NEAR(got.blocks[2].ffn.at(0)[i].item<double>(), want, 0.25 * want) << i;
  }
  const double head = curvature("block.1.kv.q", at::ones({2, 2}, at::kDouble), {3}), group = curvature("block.1.kv", at::ones({2}, at::kDouble), {1});
  EXPECT_NEAR(got.blocks[1].attention.at(1)[3].item<double>(), head, 0.25 * head);
  EXPECT_NEAR(got.blocks[1].attention.at(0)[1].item<double>(), group, 0.25 * group);
  const double hidden = curvature("hidden", at::ones({16}, at::kDouble), {4});
  EXPECT_NEAR(got.hidden.at(0)[4].item<double>(), hidden, 0.25 * hidden);
}

TEST(Gradients, SameBytesForOneTwoAndThreeThreads) {
  const ir::Model model = tiny();
  const at::Tensor windows = random_windows(model, 5, 9, 1);
  SilentEvents events;
  for (const GradientScore what : {GradientScore::Mixed, GradientScore::Kl, GradientScore::Element1}) {
    GradientScores first;
    for (const int threads : {1, 2, 3}) {
      at::set_num_threads(threads);
      const GradientScores now = gradient_scores(model, windows, what, what != GradientScore::Mixed, 3, at::kCPU, events);
      if (first.blocks.empty()) first = now;
      for (std::size_t b = 0; b < now.blocks.size(); ++b) {
        for (std::size_t i = 0; i < now.blocks[b].ffn.size(); ++i) EXPECT_TRUE(now.blocks[b].ffn[i].equal(first.blocks[b].ffn[i]));
        for (std::size_t i = 0; i < now.blocks[b].attention.size(); ++i) EXPECT_TRUE(now.blocks[b].attention[i].equal(first.blocks[b].attention[i]));
      }
      for (std::size_t i = 0; i < now.hidden.size(); ++i) EXPECT_TRUE(now.hidden[i].equal(first.hidden[i])) << threads;
    }
  }
  at::set_num_threads(1);
}

}  // namespace
}  // namespace slmc::pruning
