// Width: rankings against fp64 loops of the published formulas, the plan, and the walk on tiny really shaped models.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_solve.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/error.h"
#include "engine/solve.h"
#include "engine/statistics.h"
#include "engine/stream.h"
#include "engine/tensors.h"
#include "ir/write.h"
#include "pruning/width/refit.h"
#include "methods_testing.h"
#include "pruning/width/decide.h"
#include "pruning/width/narrow.h"
#include "test_folder.h"

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
  Scores scores;
  for (int i = 0; i < 2; ++i) {
    scores.blocks.push_back({random_tensor(1, 24, 1)[0].to(at::kDouble), random_tensor(1, 2, 2)[0].to(at::kDouble), random_tensor(2, 2, 3).to(at::kDouble)});
  }
  scores.hidden = random_tensor(1, 16, 4)[0].to(at::kDouble);
  const ir::Plan plan = decide(model, scores, {.ffn = 8});
  ASSERT_EQ(plan.take.size(), 2u);
  EXPECT_EQ(plan.take.at("block.1.ffn"), keep_best(scores.blocks[1].ffn, 8));
  EXPECT_EQ(decide(model, scores, {.ffn = 8}).take, plan.take);
  EXPECT_TRUE(decide(model, scores, {.ffn = 24, .kv = 2}).take.empty());        // keeping all changes nothing
  const ir::Model all = ir::apply(decide(model, scores, {.ffn = 8, .kv = 1, .heads = 1, .hidden = 12}), model);
  EXPECT_EQ(all.sizes().hidden, 12);
  EXPECT_EQ(all.sizes().blocks[0], (ir::BlockSizes{.kv = 1, .q = 1, .freq = 4, .pass = 0, .vd = 8, .ffn = 8}));
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

// How often the statistics pass reported a block.
struct CountingEvents : SilentEvents {
  int passes = 0;
  void emit(const Json& event) override {
    passes += event["event"] == "progress" && event["what"] == "statistics";
    SilentEvents::emit(event);
  }
};

// Channels come in pairs that do the same: a refit can give one the work of both. Blocks of a llama with ffn 32.
ir::Model model_of_twins() {
  return random_model({.hidden = 16, .blocks = 3, .kv = 2, .q = 2, .ffn = 32, .twin_channels = true});
}

TEST(Narrow, TwinsAreRemovedWithoutLossByTheRefit) {
  const ir::Model model = model_of_twins();
  const at::Tensor windows = random_windows(model, 16, 24, 1), others = random_windows(model, 8, 24, 2);
  SilentEvents events;
  const auto narrowed = [&](Repair repair) {
    return distance(model, ir::apply(narrow(model, windows, {.widths = {.ffn = 24}, .repair = repair}, events).plan, model), others);
  };
  const double cut = narrowed(Repair::None);
  EXPECT_GT(cut, 0);
  EXPECT_LT(narrowed(Repair::Dense), 0.02 * cut);
  EXPECT_LT(narrowed(Repair::Sequential), 0.02 * cut);
}

TEST(Narrow, ReportsErrorsOfTheHeldOutWindowsAndAPlanThatApplies) {
  const ir::Model model = random_model({.hidden = 16, .blocks = 2, .kv = 2, .q = 2, .ffn = 32});
  SilentEvents events;
  for (const Repair repair : {Repair::Dense, Repair::Sequential}) {
    const Narrowed n = narrow(model, random_windows(model, 16, 24, 1), {.widths = {.ffn = 16, .kv = 1}, .repair = repair}, events);
    ASSERT_EQ(n.maps.size(), 4u);
    for (const RefittedMap& m : n.maps) {
      EXPECT_GT(m.cut, 0) << m.name;
      EXPECT_LE(m.refitted, m.cut) << m.name;
    }
    const ir::Model out = ir::apply(n.plan, model);
    EXPECT_EQ(out.sizes().blocks[1].ffn, 16);
    EXPECT_EQ(out.sizes().blocks[1].kv, 1);
    EXPECT_EQ(out.find("block.1.attn.o")->shape, (std::vector<std::int64_t>{16, 2 * out.sizes().blocks[1].vd}));
  }
}

using NarrowFiles = FolderTest;

TEST_F(NarrowFiles, FromTheCacheIsWhatItIsWithoutOneAndAnotherWidthNeedsNoForwardPass) {
  const ir::Model model = random_model({.hidden = 16, .blocks = 2, .kv = 2, .q = 2, .ffn = 32});
  const at::Tensor windows = random_windows(model, 9, 24, 1);
  const auto plan = [&](std::int64_t ffn, const std::filesystem::path& cache, CountingEvents& events) {
    const Narrowed n = narrow(model, windows, {.widths = {.ffn = ffn, .kv = 1}, .cache = cache}, events);
    std::vector<std::vector<float>> values;
    for (const auto& [name, from] : n.plan.set) values.push_back(from.value->to_floats());
    return std::pair(n.plan.take, values);
  };
  CountingEvents first, again, fresh, other, other_fresh;
  const auto miss = plan(16, folder_, first), hit = plan(16, folder_, again), without = plan(16, {}, fresh);
  EXPECT_GT(first.passes, 0);
  EXPECT_EQ(again.passes, 0);
  EXPECT_EQ(miss, hit);
  EXPECT_EQ(miss, without);
  EXPECT_EQ(plan(24, folder_, other), plan(24, {}, other_fresh));
  EXPECT_EQ(other.passes, 0);
  EXPECT_GT(other_fresh.passes, 0);
}

// Query heads inside each group: the plan's heads are the best of each, and the refit is the least-squares one of the kept columns.
TEST(Narrow, HeadsAreCutInsideTheirGroups) {
  const ir::Model model = random_model({.hidden = 32, .blocks = 2, .kv = 2, .q = 3, .ffn = 32});
  SilentEvents events;
  const Narrowed n = narrow(model, random_windows(model, 16, 24, 1), {.widths = {.kv = 1, .heads = 2}}, events);
  const ir::Model out = ir::apply(n.plan, model);
  EXPECT_EQ(out.sizes().blocks[0].kv, 1);
  EXPECT_EQ(out.sizes().blocks[0].q, 2);
  EXPECT_EQ(out.find("block.1.attn.q")->shape, (std::vector<std::int64_t>{2 * 8, 32}));
  EXPECT_EQ(n.maps.size(), 2u);
  for (const RefittedMap& m : n.maps) EXPECT_LT(m.refitted, m.cut) << m.name;
}

// The plan that a stage writes beside its result makes the same result again.
TEST_F(NarrowFiles, ItsPlanFileMakesTheSameModel) {
  const ir::Model model = random_model({.hidden = 16, .blocks = 2, .kv = 2, .q = 2, .ffn = 32});
  SilentEvents events;
  const Narrowed n = narrow(model, random_windows(model, 9, 24, 1), {.widths = {.ffn = 16, .heads = 1}}, events);
  ir::write_plan(folder_, n.plan);
  const ir::Plan read = ir::read_plan(folder_ / "plan.json");
  EXPECT_EQ(read.take, n.plan.take);
  EXPECT_EQ((*read.why)["criterion"], "wanda");
  EXPECT_EQ((*read.why)["scores"]["block.1.ffn"].size(), 32u);
  EXPECT_GT((*read.why)["errors"]["block.0.ffn.down"]["cut"].get<double>(), 0);
  for (const auto& [name, difference] : ir::compare(ir::apply(n.plan, model), ir::apply(read, model))) EXPECT_EQ(difference, 0) << name;
}

// Dense: the weights are those of refit_kept on the Gram matrix of the whole model's inputs, with the ridge that the report names.
TEST(Narrow, TheDenseRefitIsLeastSquaresOnTheWholeModelsInputs) {
  const ir::Model model = random_model({.hidden = 16, .blocks = 1, .kv = 2, .q = 2, .ffn = 32});
  const at::Tensor windows = random_windows(model, 16, 24, 1);
  SilentEvents events;
  const Narrowed n = narrow(model, windows, {.widths = {.ffn = 16}, .repair = Repair::Dense}, events);
  const engine::Statistics all = engine::collect(model, windows.narrow(0, 0, 14), {.requests = {{"block.0.ffn.down.in", engine::Statistic::Gram}}}, events);
  const at::Tensor want = engine::refit_kept(engine::to_tensor(model.read("block.0.ffn.down")), all.at("block.0.ffn.down.in", engine::Statistic::Gram),
                                             n.plan.take.at("block.0.ffn"), n.maps[0].ridge, "w");
  const at::Tensor got = engine::to_tensor(*n.plan.set.at("block.0.ffn.down").value, at::kDouble);
  EXPECT_LT((got - want).abs().max().item<double>(), 1e-6);
}

// Sequential: behind the first cut, the dense refit's weights and least squares on tokens weighted by 1 / |stream|². Token 0 has a stream forty
// times as long as the others'; unweighted it would rule the sums.
TEST(Narrow, TheSequentialRefitWeighsTokensByTheirStream) {
  const ir::Model drawn = random_model({.hidden = 16, .blocks = 1, .kv = 2, .q = 2, .ffn = 32});
  ir::Plan longer(drawn);
  at::Tensor embed = engine::to_tensor(drawn.read("embed"));
  embed[0] *= 40;
  longer.set["embed"].value = engine::to_data(embed);
  const ir::Model model = ir::apply(longer, drawn);
  const at::Tensor windows = random_windows(model, 64, 24, 1), fit = windows.narrow(0, 0, 56);
  SilentEvents events;
  const auto narrowed = [&](Repair repair) { return narrow(model, windows, {.widths = {.ffn = 16}, .repair = repair}, events); };
  const Narrowed dense = narrowed(Repair::Dense), sequential = narrowed(Repair::Sequential);
  ASSERT_EQ(sequential.sequence.size(), 2u);
  EXPECT_EQ(sequential.sequence[0].ridge, 0);                  // attn.o: nothing is missing there yet
  ASSERT_GT(sequential.sequence[1].ridge, 0);

  const engine::Arch arch = engine::arch_of(model);
  engine::PlainWeights weights(model, at::kFloat, at::kCPU);
  at::Tensor x = engine::embed_windows(arch, weights, fit, at::kCPU), inputs;
  engine::BlockSteps steps(arch, weights, 0, x);
  for (; !steps.done(); steps.next()) inputs = steps.inputs().clone();       // the last ones are ffn.down's
  const at::Tensor g2 = x.flatten(0, 1).to(at::kDouble).square().sum(1, true).reciprocal(), a = inputs.to(at::kDouble);
  const std::vector<std::int64_t>& kept = sequential.plan.take.at("block.0.ffn");
  const at::Tensor own = columns_of(a, kept), w0 = engine::to_tensor(*dense.plan.set.at("block.0.ffn.down").value, at::kDouble);
  const at::Tensor missing = at::mm(a, engine::to_tensor(model.read("block.0.ffn.down"), at::kDouble).t()) - at::mm(own, w0.t());
  const at::Tensor gram = at::mm((own * g2).t(), own) / g2.sum(), cross = at::mm((missing * g2).t(), own) / g2.sum();
  const at::Tensor damped = gram + gram.diagonal().mean() * sequential.sequence[1].ridge * at::eye(16, at::kDouble);
  const at::Tensor want = w0 + at::linalg_solve(damped, cross.t()).t();
  const at::Tensor got = engine::to_tensor(*sequential.plan.set.at("block.0.ffn.down").value, at::kDouble);
  EXPECT_LT((got - want).abs().max().item<double>(), 1e-5);
  EXPECT_GT((got - w0).abs().max().item<double>(), 1e-3);
}

TEST(Narrow, ChannelsOfTheStreamThatAreNeverUsedGoWithoutLoss) {
  const ir::Model model = random_model({.hidden = 24, .blocks = 2, .kv = 2, .q = 2, .ffn = 32, .dead_hidden = 8});
  const at::Tensor windows = random_windows(model, 9, 24, 1), others = random_windows(model, 3, 24, 2);
  SilentEvents events;
  for (const Repair repair : {Repair::None, Repair::Dense, Repair::Sequential}) {
    const Narrowed n = narrow(model, windows, {.widths = {.hidden = 16}, .criterion = "minitron", .repair = repair}, events);
    const ir::Model out = ir::apply(n.plan, model);
    EXPECT_EQ(out.sizes().hidden, 16);
    EXPECT_LT(distance(model, out, others), 1e-7);             // what is left is the norms' epsilon
  }
  ir::Plan uncorrected = narrow(model, windows, {.widths = {.hidden = 16}, .criterion = "minitron", .repair = Repair::None}, events).plan;
  uncorrected.set.clear();
  EXPECT_GT(distance(model, ir::apply(uncorrected, model), others), 1e-4);
}

// All axes at once; each repair brings the logits nearer on other text than the cut alone.
TEST(Narrow, RepairsHelpOnAllAxesTogether) {
  const ir::Model model = random_model({.hidden = 32, .blocks = 3, .kv = 2, .q = 3, .ffn = 64, .twin_channels = true, .dead_hidden = 4});
  const at::Tensor windows = random_windows(model, 24, 24, 1), others = random_windows(model, 6, 24, 2);
  SilentEvents events;
  std::vector<double> off;
  for (const Repair repair : {Repair::None, Repair::Dense, Repair::Sequential}) {
    const Narrowed n = narrow(model, windows, {.widths = {.ffn = 40, .heads = 2, .hidden = 28}, .criterion = "minitron", .repair = repair}, events);
    off.push_back(distance(model, ir::apply(n.plan, model), others));
    if (repair == Repair::Sequential) {
      EXPECT_EQ(n.sequence.size(), 21u);                       // every map of three blocks
    }
  }
  EXPECT_LT(off[1], off[0]);
  EXPECT_LT(off[2], off[0]);
}

TEST(Narrow, BiasesTakeTheMeanOfWhatIsRemovedWhereThereAreSome) {
  const ir::Model model = ir::load(std::string(SLMC_SOURCE_DIR) + "/tests/data/tiny/gpt2");
  const at::Tensor windows = random_windows(model, 9, 16, 1);
  SilentEvents events;
  const std::int64_t kept = model.sizes().blocks[0].ffn / 2;
  const Narrowed n = narrow(model, windows, {.widths = {.ffn = kept}, .repair = Repair::Bias}, events);
  const at::Tensor mean = engine::collect(model, windows.narrow(0, 0, 8), {.requests = {{"block.0.ffn.down.in", engine::Statistic::Mean}}}, events)
                              .at("block.0.ffn.down.in", engine::Statistic::Mean);
  const at::Tensor w = engine::to_tensor(model.read("block.0.ffn.down"), at::kDouble), before = engine::to_tensor(model.read("block.0.ffn.down.bias"), at::kDouble);
  const at::Tensor now = engine::to_tensor(*n.plan.set.at("block.0.ffn.down.bias").value, at::kDouble);
  const std::vector<std::int64_t>& stays = n.plan.take.at("block.0.ffn");
  for (std::int64_t i = 0; i < w.size(0); ++i) {
    double want = before[i].item<double>();
    for (std::int64_t j = 0; j < w.size(1); ++j) {
      if (std::find(stays.begin(), stays.end(), j) == stays.end()) want += w[i][j].item<double>() * mean[j].item<double>();
    }
    EXPECT_NEAR(now[i].item<double>(), want, 1e-6);
  }
  EXPECT_FALSE(n.plan.set.contains("block.0.ffn.down"));

  // With one, the refit explains more than without: its error is that of the affine fit.
  const Narrowed dense = narrow(model, windows, {.widths = {.ffn = kept}, .repair = Repair::Dense}, events);
  EXPECT_TRUE(dense.plan.set.contains("block.0.ffn.down.bias"));
  EXPECT_LE(dense.maps[0].refitted, n.maps[0].refitted);

  const ir::Model llama = random_model({.hidden = 16, .blocks = 1, .kv = 2, .q = 2, .ffn = 32});
  EXPECT_THROW(narrow(llama, windows, {.widths = {.ffn = 16}, .repair = Repair::Bias}, events), Error);
}

// The affine refit against the normal equations of samples with a column of ones.
TEST(Refit, WithABiasItIsLeastSquaresWithAnIntercept) {
  const at::Tensor x = (random_tensor(400, 6, 1) + 2).to(at::kDouble), w = random_tensor(3, 6, 2).to(at::kDouble);
  const std::vector<std::int64_t> kept = {0, 2, 3, 5};
  const at::Tensor gram = at::mm(x.t(), x) / 400, means = x.mean(0);
  const Missing m = held_out_of_cut(w, gram, means, kept);
  const ir::Model model = random_model({.hidden = 16, .blocks = 1, .kv = 1, .q = 2, .ffn = 32});
  const ir::TensorSpec& spec = *model.find("block.0.ffn.down");
  const Refitted got = refit({columns_of(w, kept).to(at::kFloat), at::zeros({3})}, m, m, spec, &spec);
  const at::Tensor ones = at::ones({400, 1}, at::kDouble), design = at::cat({columns_of(x, kept), ones}, 1), y = at::mm(x, w.t());
  const at::Tensor normal = at::mm(design.t(), design), solved = at::linalg_solve(normal, at::mm(design.t(), y));          // [5, 3]
  EXPECT_LT((got.now.weight.to(at::kDouble) - solved.narrow(0, 0, 4).t()).abs().max().item<double>(), 1e-3);              // ridge 1e-4
  EXPECT_LT((got.now.bias.to(at::kDouble) - solved[4]).abs().max().item<double>(), 1e-2);
  const at::Tensor left = y - at::mm(columns_of(x, kept), got.now.weight.to(at::kDouble).t()) - got.now.bias.to(at::kDouble);
  EXPECT_NEAR(got.map.refitted, left.square().sum().item<double>() / y.square().sum().item<double>(), 1e-6);
  EXPECT_LT(got.map.refitted, got.map.cut);
}

TEST(Narrow, CriteriaWithoutTextNeedNoWindows) {
  const ir::Model model = model_of_twins();
  SilentEvents events;
  for (const char* name : {"random", "magnitude"}) {
    const Narrowed n = narrow(model, {}, {.widths = {.ffn = 16, .heads = 1}, .criterion = name, .repair = Repair::None}, events);
    EXPECT_EQ(n.plan.take.at("block.0.ffn").size(), 16u);
    EXPECT_TRUE(n.plan.set.empty());
  }
}

TEST(Narrow, SameBytesForOneTwoAndThreeThreads) {
  const ir::Model model = random_model({.hidden = 32, .blocks = 2, .kv = 2, .q = 2, .ffn = 64});
  const at::Tensor windows = random_windows(model, 17, 16, 1);
  SilentEvents events;
  for (const Repair repair : {Repair::Dense, Repair::Sequential}) {
    std::vector<float> first;
    for (const int threads : {1, 2, 3}) {
      at::set_num_threads(threads);
      const Narrowed n = narrow(model, windows, {.widths = {.ffn = 32}, .repair = repair}, events);
      const std::vector<float> now = n.plan.set.at("block.1.ffn.down").value->to_floats();
      if (first.empty()) first = now;
      EXPECT_EQ(now, first) << threads << " threads";
    }
  }
  at::set_num_threads(1);
}

}  // namespace
}  // namespace slmc::pruning
