// Width: rankings against fp64 loops of the published formulas, the plan, and the walk on tiny really shaped models.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "core/error.h"
#include "engine/stream.h"
#include "methods_testing.h"
#include "pruning/width/decide.h"
#include "pruning/width/narrow.h"

namespace slmc::pruning {
namespace {

using testing_methods::random_model;
using testing_methods::random_tensor;
using testing_methods::random_windows;
using testing_methods::SilentEvents;

double at(const at::Tensor& t, std::int64_t i, std::int64_t j) { return t[i][j].item<double>(); }

double row_norm(const at::Tensor& w, std::int64_t first, std::int64_t rows) {
  double sum = 0;
  for (std::int64_t i = first; i < first + rows; ++i)
    for (std::int64_t j = 0; j < w.size(1); ++j) sum += at(w, i, j) * at(w, i, j);
  return std::sqrt(sum);
}

double column_norm(const at::Tensor& w, std::int64_t first, std::int64_t columns) {
  double sum = 0;
  for (std::int64_t j = first; j < first + columns; ++j)
    for (std::int64_t i = 0; i < w.size(0); ++i) sum += at(w, i, j) * at(w, i, j);
  return std::sqrt(sum);
}

FfnPart ffn_part() {
  return {.gate = random_tensor(7, 5, 1), .up = random_tensor(7, 5, 2), .down = random_tensor(5, 7, 3),
          .inputs = {.mean_square = random_tensor(1, 7, 4)[0].square().to(at::kDouble)}, .rng = Rng(1)};
}

KvPart kv_part() {       // 3 groups of 2 heads of width 2, values of width 3
  return {.q = random_tensor(12, 5, 1), .k = random_tensor(6, 5, 2), .v = random_tensor(9, 5, 3), .o = random_tensor(5, 18, 4),
          .inputs = {.mean_square = random_tensor(1, 18, 5)[0].square().to(at::kDouble)}, .groups = 3, .heads = 2, .rng = Rng(1)};
}

TEST(Criteria, MagnitudeEqualsTheLoops) {
  FfnPart f = ffn_part();
  for (std::int64_t i = 0; i < 7; ++i) {
    const double want = row_norm(f.gate, i, 1) * row_norm(f.up, i, 1) * column_norm(f.down, i, 1);
    EXPECT_NEAR(criterion("magnitude").ffn(f)[i].item<double>(), want, 1e-12 * want);
  }
  f.gate = at::Tensor();                                       // gpt2, gpt_neox
  EXPECT_NEAR(criterion("magnitude").ffn(f)[3].item<double>(), row_norm(f.up, 3, 1) * column_norm(f.down, 3, 1), 1e-9);
  const KvPart k = kv_part();
  for (std::int64_t g = 0; g < 3; ++g) {
    const double want = row_norm(k.q, 4 * g, 4) * row_norm(k.k, 2 * g, 2) * row_norm(k.v, 3 * g, 3) * column_norm(k.o, 6 * g, 6);
    EXPECT_NEAR(criterion("magnitude").kv(k)[g].item<double>(), want, 1e-12 * want);
  }
}

TEST(Criteria, WandaEqualsTheLoops) {
  const FfnPart f = ffn_part();
  for (std::int64_t i = 0; i < 7; ++i) {
    const double want = std::sqrt(f.inputs.mean_square[i].item<double>()) * column_norm(f.down, i, 1);
    EXPECT_NEAR(criterion("wanda").ffn(f)[i].item<double>(), want, 1e-12 * want);
  }
  const KvPart k = kv_part();
  for (std::int64_t g = 0; g < 3; ++g) {
    double sum = 0;
    for (std::int64_t j = 6 * g; j < 6 * g + 6; ++j) sum += k.inputs.mean_square[j].item<double>() * std::pow(column_norm(k.o, j, 1), 2);
    EXPECT_NEAR(criterion("wanda").kv(k)[g].item<double>(), std::sqrt(sum), 1e-12 * std::sqrt(sum));
  }
}

TEST(Criteria, HeadsEqualTheLoopsAndMakeUpTheirGroups) {
  const KvPart k = kv_part();
  const at::Tensor magnitude = criterion("magnitude").heads(k), wanda = criterion("wanda").heads(k), groups = criterion("wanda").kv(k);
  for (std::int64_t g = 0; g < 3; ++g) {
    double sum = 0;
    for (std::int64_t j = 0; j < 2; ++j) {
      const std::int64_t h = 2 * g + j;
      const double want = row_norm(k.q, 2 * h, 2) * column_norm(k.o, 3 * h, 3);
      EXPECT_NEAR(at(magnitude, g, j), want, 1e-12 * want);
      sum += at(wanda, g, j) * at(wanda, g, j);
    }
    EXPECT_NEAR(groups[g].item<double>(), std::sqrt(sum), 1e-12);
  }
}

TEST(Criteria, WandaIsTheOutputErrorOfUncorrelatedInputs) {
  // With E[x xᵀ] diagonal, removing column j costs exactly s_j².
  const FfnPart f = ffn_part();
  const at::Tensor scores = criterion("wanda").ffn(f);
  for (std::int64_t j = 0; j < 7; ++j) {
    double cost = 0;
    for (std::int64_t i = 0; i < 5; ++i) cost += at(f.down, i, j) * at(f.down, i, j) * f.inputs.mean_square[j].item<double>();
    EXPECT_NEAR(std::pow(scores[j].item<double>(), 2), cost, 1e-12 * cost);
  }
}

TEST(Criteria, RandomIsADrawOfItsSeed) {
  FfnPart f = ffn_part();
  const at::Tensor one = criterion("random").ffn(f), again = criterion("random").ffn(f);
  EXPECT_TRUE(one.equal(again));
  f.rng = Rng(2);
  EXPECT_FALSE(one.equal(criterion("random").ffn(f)));
}

TEST(Decide, KeepsTheBestInOrderAndTheFirstOfEquals) {
  const at::Tensor scores = at::tensor({3.0, 1.0, 5.0, 3.0, 2.0, 3.0}, at::kDouble);
  EXPECT_EQ(keep_best(scores, 3), (std::vector<std::int64_t>{0, 2, 3}));
  EXPECT_EQ(keep_best(scores, 6), (std::vector<std::int64_t>{0, 1, 2, 3, 4, 5}));
}

TEST(Decide, PlansOnlyWhatIsNarrowedAndIsPure) {
  const ir::Model model = random_model({.hidden = 16, .blocks = 2, .kv = 2, .q = 2, .ffn = 24});
  std::vector<BlockScores> scores(2);
  for (auto& s : scores) s = {random_tensor(1, 24, 1)[0].to(at::kDouble), random_tensor(1, 2, 2)[0].to(at::kDouble)};
  const ir::Plan plan = decide(model, scores, {.ffn = 8});
  ASSERT_EQ(plan.take.size(), 2u);
  EXPECT_EQ(plan.take.at("block.1.ffn"), keep_best(scores[1].ffn, 8));
  EXPECT_EQ(decide(model, scores, {.ffn = 8}).take, plan.take);
  EXPECT_TRUE(decide(model, scores, {.ffn = 24, .kv = 2}).take.empty());        // keeping all changes nothing
  EXPECT_EQ(ir::apply(decide(model, scores, {.ffn = 8, .kv = 1}), model).sizes().blocks[0].kv, 1);
}

TEST(Decide, IllegalWidthsNameTheNearest) {
  const ir::Model model = random_model({.hidden = 16, .blocks = 2, .kv = 2, .q = 2, .ffn = 96});
  const auto text = [&](const Widths& w, std::int64_t align) -> std::string {
    try {
      require_widths(model.sizes(), w, align);
    } catch (const Error& e) {
      return e.message() + " | " + e.diagnostics()[0].hint;
    }
    return "";
  };
  EXPECT_EQ(text({.ffn = 64}, 32), "");
  EXPECT_EQ(text({.ffn = 70}, 32), "the feed-forward width must be a multiple of 32, but is 70 | nearest: 64 and 96; or set align");
  EXPECT_EQ(text({.ffn = 128}, 32), "the feed-forward width must be at most 96, what the model has, but is 128 | ");
  EXPECT_EQ(text({.kv = 3}, 32), "the number of key/value groups must be at most 2, what the model has, but is 3 | ");
  EXPECT_NE(text({}, 32), "");
}

// E|logits difference|² of two models over windows.
double distance(const ir::Model& a, const ir::Model& b, const at::Tensor& windows) {
  const at::NoGradGuard no_grad;
  engine::PlainWeights wa(a, at::kDouble, at::kCPU), wb(b, at::kDouble, at::kCPU);
  const at::Tensor x = engine::hidden_states(engine::arch_of(a), wa, windows), y = engine::hidden_states(engine::arch_of(b), wb, windows);
  return (engine::logits(engine::arch_of(a), wa, x) - engine::logits(engine::arch_of(b), wb, y)).square().mean().item<double>();
}

// Channels come in pairs that do the same: a refit can give one the work of both. Blocks of a llama with ffn 32.
ir::Model model_of_twins() {
  return random_model({.hidden = 16, .blocks = 3, .kv = 2, .q = 2, .ffn = 32, .twin_channels = true});
}

TEST(Narrow, TwinsAreRemovedWithoutLossByTheRefit) {
  const ir::Model model = model_of_twins();
  const at::Tensor windows = random_windows(model, 16, 24, 1), others = random_windows(model, 8, 24, 2);
  SilentEvents events;
  const auto narrowed = [&](bool refit) {
    return ir::apply(narrow(model, windows, {.widths = {.ffn = 24}, .criterion = "wanda", .refit = refit}, events).plan, model);
  };
  const double cut = distance(model, narrowed(false), others), healed = distance(model, narrowed(true), others);
  EXPECT_GT(cut, 0);
  EXPECT_LT(healed, 0.02 * cut);
}

TEST(Narrow, ReportsErrorsOfTheHeldOutWindowsAndAPlanThatApplies) {
  const ir::Model model = random_model({.hidden = 16, .blocks = 2, .kv = 2, .q = 2, .ffn = 32});
  SilentEvents events;
  const Narrowed n = narrow(model, random_windows(model, 16, 24, 1), {.widths = {.ffn = 16, .kv = 1}, .criterion = "wanda", .refit = true}, events);
  ASSERT_EQ(n.maps.size(), 4u);
  for (const NarrowedMap& m : n.maps) {
    EXPECT_GT(m.cut, 0) << m.name;
    EXPECT_LE(m.refitted, m.cut) << m.name;
  }
  const ir::Model out = ir::apply(n.plan, model);
  EXPECT_EQ(out.sizes().blocks[1].ffn, 16);
  EXPECT_EQ(out.sizes().blocks[1].kv, 1);
  EXPECT_EQ(out.find("block.1.attn.o")->shape, (std::vector<std::int64_t>{16, 2 * out.sizes().blocks[1].vd}));
}

TEST(Narrow, CriteriaWithoutTextNeedNoWindows) {
  const ir::Model model = model_of_twins();
  SilentEvents events;
  for (const char* name : {"random", "magnitude"}) {
    const Narrowed n = narrow(model, {}, {.widths = {.ffn = 16}, .criterion = name, .refit = false}, events);
    EXPECT_EQ(n.plan.take.at("block.0.ffn").size(), 16u);
    EXPECT_TRUE(n.plan.set.empty());
  }
}

TEST(Narrow, SameBytesForOneTwoAndThreeThreads) {
  const ir::Model model = random_model({.hidden = 32, .blocks = 2, .kv = 2, .q = 2, .ffn = 64});
  const at::Tensor windows = random_windows(model, 17, 16, 1);
  SilentEvents events;
  std::vector<float> first;
  for (const int threads : {1, 2, 3}) {
    at::set_num_threads(threads);
    const Narrowed n = narrow(model, windows, {.widths = {.ffn = 32}, .criterion = "wanda", .refit = true}, events);
    const std::vector<float> now = n.plan.set.at("block.1.ffn.down").value->to_floats();
    if (first.empty()) first = now;
    EXPECT_EQ(now, first) << threads << " threads";
  }
  at::set_num_threads(1);
}

}  // namespace
}  // namespace slmc::pruning
