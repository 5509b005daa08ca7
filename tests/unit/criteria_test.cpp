// Criteria against what public programs give (tests/golden/criteria, made by scripts/goldens/criteria.py), against fp64 loops, and against
// the rises in error that they claim to be.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <Eigen/Dense>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/solve.h"
#include "methods_testing.h"
#include "pruning/width/aggregate.h"
#include "pruning/width/flap.h"
#include "pruning/width/gradients.h"
#include "pruning/width/obs.h"

namespace slmc::pruning {
namespace {

using testing_methods::random_tensor;

const Json& golden() {
  static const Json json = Json::parse(std::ifstream(SLMC_SOURCE_DIR "/tests/golden/criteria/criteria.json"));
  return json;
}

at::Tensor tensor_of(const Json& j) {
  if (j[0].is_number()) return at::tensor(j.get<std::vector<double>>(), at::kDouble);
  std::vector<at::Tensor> rows;
  for (const Json& row : j) rows.push_back(tensor_of(row));
  return at::stack(rows);
}

at::Tensor weight(const char* name) { return tensor_of(golden()["weights"][name]).to(at::kFloat); }

Inputs inputs(const char* name) {
  const at::Tensor x = tensor_of(golden()["inputs"][name]), rows = x.flatten(0, 1);
  return {.mean_square = rows.square().mean(0), .mean = rows.mean(0), .window_mean_abs = x.abs().mean(1)};
}

at::Tensor gradient_rows(const std::string& kind, const char* name, bool rows) {
  const at::Tensor each = tensor_of(golden()["gradients"][name]);
  const std::map<std::string, GradientScore> by = {{"vector", GradientScore::Vector}, {"element1", GradientScore::Element1},
                                                   {"element2", GradientScore::Element2}, {"mixed", GradientScore::Mixed}};
  return tensor_scores(by.at(kind), weight(name), each.mean(0), each.square().mean(0), rows);
}

// `kind` fills the gradients where it is one of the gradient scores.
FfnPart golden_ffn(const std::string& kind = "") {
  FfnPart part{.gate = weight("gate"), .up = weight("up"), .down = weight("down"), .inputs = inputs("down"), .rng = Rng(1)};
  if (!kind.empty()) part.gradients = {gradient_rows(kind, "gate", true), gradient_rows(kind, "up", true), gradient_rows(kind, "down", false)};
  return part;
}

KvPart golden_attention(const std::string& kind = "") {
  KvPart part{.q = weight("q"), .k = weight("k"), .v = weight("v"), .o = weight("o"), .inputs = inputs("o"), .groups = 3, .heads = 1, .rng = Rng(1)};
  if (!kind.empty()) {
    part.gradients = {gradient_rows(kind, "q", true), gradient_rows(kind, "k", true), gradient_rows(kind, "v", true), gradient_rows(kind, "o", false)};
  }
  return part;
}

void expect_same(const at::Tensor& got, const Json& want, const std::string& what) {
  const at::Tensor w = tensor_of(want), g = got.flatten();
  ASSERT_EQ(g.numel(), w.numel()) << what;
  for (std::int64_t i = 0; i < w.numel(); ++i) {
    const double expected = w[i].item<double>();
    EXPECT_NEAR(g[i].item<double>(), expected, 1e-12 * std::max(1.0, std::abs(expected))) << what << " " << i;
  }
}

TEST(GoldenCriteria, EveryPublicScore) {
  int seen = 0;
  for (const auto& [name, want] : golden()["scores"].items()) {
    const std::string kind = name.substr(0, name.find(' '));
    const bool reduced = kind != name, taylor = reduced && kind[0] != 'l';
    const Criterion& c = criterion(taylor ? "taylor-" + kind : kind);
    FfnPart ffn = golden_ffn(taylor ? kind : "");
    KvPart attention = golden_attention(taylor ? kind : "");
    if (reduced) ffn.aggregate = attention.aggregate = aggregate_from(name.substr(kind.size() + 1));
    expect_same(c.ffn(ffn), want["ffn"], name + " ffn");
    if (want.contains("heads")) expect_same(c.kv(attention), want["heads"], name + " heads");
    ++seen;
  }
  EXPECT_EQ(seen, 3 + 6 * 6);
}

// Two query heads share each group; d = 2, vd = 3.
TEST(Aggregates, QueryHeadsFoldIntoTheirOwnGroup) {
  KvPart part{.groups = 2, .heads = 2, .rng = Rng(1)};
  const at::Tensor q = at::tensor({1., 2., 3., 4., 50., 60., 70., 80.}, at::kDouble), k = at::tensor({1., 1., 2., 2.}, at::kDouble);
  const at::Tensor v = at::tensor({3., 3., 5., 5.}, at::kDouble), o = at::tensor({1., 0., 1., 0., 0., 9., 0., 9.}, at::kDouble);
  EXPECT_TRUE(aggregated_groups({q, k, v, o}, part).equal(at::tensor({10. + 2 + 6 + 2, 260. + 4 + 10 + 18}, at::kDouble)));
  EXPECT_TRUE(aggregated_heads({q, k, v, o}, part).equal(at::tensor({4., 8., 119., 159.}, at::kDouble).view({2, 2})));
  part.aggregate = Aggregate::Max;                                     // entry by entry: q is 4, 6 in group 0
  EXPECT_TRUE(aggregated_groups({q, k, v, o}, part).equal(at::tensor({10., 260.}, at::kDouble)));
  const at::Tensor wide = at::tensor({1., 1., 1., 5., 5., 5.}, at::kDouble), o3 = at::ones({12}, at::kDouble);
  EXPECT_TRUE(aggregated_groups({q, k, wide, o3}, part).equal(at::tensor({10., 260.}, at::kDouble)));
  part.aggregate = Aggregate::Last;
  EXPECT_TRUE(aggregated_groups({q, k, wide, o3}, part).equal(at::tensor({6., 6.}, at::kDouble)));
}

TEST(Flap, TheBiasIsWhatTheRemovedMeansGave) {
  const at::Tensor w = random_tensor(4, 6, 1), mean = random_tensor(1, 6, 2)[0].to(at::kDouble);
  const at::Tensor bias = removed_mean(w, mean, {1, 4});
  for (std::int64_t i = 0; i < 4; ++i) {
    double want = 0;
    for (const std::int64_t j : {0, 2, 3, 5}) want += w[i][j].item<double>() * mean[j].item<double>();
    EXPECT_NEAR(bias[i].item<double>(), want, 1e-12);
  }
}

TEST(Flap, ConstantInputsAreWorthNothing) {
  FfnPart part = golden_ffn();
  part.inputs.mean_square[3] = part.inputs.mean[3] * part.inputs.mean[3];
  EXPECT_EQ(criterion("flap").ffn(part).argmin().item<std::int64_t>(), 3);
  part.inputs.mean_square.copy_(part.inputs.mean.square());
  EXPECT_EQ(criterion("flap").ffn(part).abs().max().item<double>(), 0);
}

Eigen::MatrixXd eigen(const at::Tensor& t) {
  const at::Tensor d = t.to(at::kDouble).contiguous();
  return Eigen::Map<const Eigen::Matrix<double, -1, -1, Eigen::RowMajor>>(d.const_data_ptr<double>(), d.size(0), d.size(1));
}

struct Problem {
  at::Tensor w, gram;      // [out, n], [n, n]
};

// Inputs that depend on each other, as activations do.
Problem problem(std::int64_t out, std::int64_t n, std::uint64_t seed) {
  const at::Tensor x = random_tensor(3 * n, n, seed).to(at::kDouble).mm(random_tensor(n, n, seed + 1).to(at::kDouble) * 0.3 + at::eye(n, at::kDouble));
  return {random_tensor(out, n, seed + 2), x.t().mm(x) / static_cast<double>(3 * n)};
}

// min over what the kept columns become of tr(dW A dWᵀ), A with its ridge: Schur's complement, by Eigen.
double least_error(const Problem& p, double ridge, const std::vector<std::int64_t>& removed) {
  Eigen::MatrixXd a = eigen(p.gram), w = eigen(p.w);
  a.diagonal().array() += ridge * a.diagonal().mean();
  const Eigen::MatrixXd inverse = a.fullPivLu().inverse();
  Eigen::MatrixXd block(removed.size(), removed.size()), columns(w.rows(), removed.size());
  for (std::size_t i = 0; i < removed.size(); ++i) {
    columns.col(i) = w.col(removed[i]);
    for (std::size_t j = 0; j < removed.size(); ++j) block(i, j) = inverse(removed[i], removed[j]);
  }
  return (columns * block.fullPivLu().inverse() * columns.transpose()).trace();
}

std::vector<std::int64_t> columns_of(const std::vector<std::int64_t>& structures, std::int64_t width) {
  std::vector<std::int64_t> out;
  for (const std::int64_t s : structures)
    for (std::int64_t c = 0; c < width; ++c) out.push_back(s * width + c);
  return out;
}

// The published chain, one removal at a time, each best removal found by trying all.
std::vector<std::int64_t> greedy(const Problem& p, double ridge, std::int64_t structures, std::int64_t count) {
  const std::int64_t width = p.w.size(1) / structures;
  std::vector<std::int64_t> removed;
  for (std::int64_t step = 0; step < count; ++step) {
    std::int64_t best = -1;
    double least = 0;
    for (std::int64_t s = 0; s < structures; ++s) {
      if (std::find(removed.begin(), removed.end(), s) != removed.end()) continue;
      std::vector<std::int64_t> trial = removed;
      trial.push_back(s);
      const double error = least_error(p, ridge, columns_of(trial, width));
      if (best < 0 || error < least) best = s, least = error;
    }
    removed.push_back(best);
  }
  return removed;
}

TEST(Obs, OneAtATimeIsTheGreedyOfAllTrials) {
  const Problem p = problem(5, 12, 3);
  const ObsTrace trace = obs_trace(p.w, p.gram, 12, 5, 7, 1e-2, "x");
  EXPECT_EQ(trace.removed, greedy(p, 1e-2, 12, 7));
  for (std::size_t i = 0; i < 7; ++i) {
    const double want = least_error(p, 1e-2, {trace.removed.begin(), trace.removed.begin() + static_cast<std::ptrdiff_t>(i) + 1});
    EXPECT_NEAR(trace.error[i], want, 1e-9 * want);
  }
}

TEST(Obs, GroupsOfColumnsToo) {
  const Problem p = problem(5, 24, 9);
  const ObsTrace trace = obs_trace(p.w, p.gram, 6, 2, 6, 1e-3, "x");
  EXPECT_EQ(trace.removed, greedy(p, 1e-3, 6, 4));
  EXPECT_NEAR(trace.error.back(), least_error(p, 1e-3, columns_of(trace.removed, 4)), 1e-9 * trace.error.back());
}

TEST(Obs, TheErrorIsThatOfTheRefit) {
  const Problem p = problem(5, 40, 5);
  const ObsTrace trace = obs_trace(p.w, p.gram, 40, 24, 4, 0, "x");
  std::vector<std::int64_t> kept;
  for (std::int64_t i = 0; i < 40; ++i)
    if (std::find(trace.removed.begin(), trace.removed.end(), i) == trace.removed.end()) kept.push_back(i);
  const at::Tensor now = engine::refit_kept(p.w, p.gram, kept, 0, "x");
  const double whole = engine::output_error(p.w, p.gram);
  EXPECT_NEAR(trace.error.back() / whole, engine::removal_error(p.w, p.gram, kept, now), 1e-9);
}

TEST(Obs, RoundsRemoveEquallyManyAndScoresKeepWhatStayed) {
  const Problem p = problem(6, 50, 7);
  const ObsTrace trace = obs_trace(p.w, p.gram, 50, 17, kObsRounds, kObsRidge, "x");
  ASSERT_EQ(trace.removed.size(), 33u);
  std::set<double> levels(trace.error.begin(), trace.error.end());
  EXPECT_EQ(levels.size(), 16u);
  FfnPart part{.down = p.w, .inputs = {.gram = p.gram}, .keep = 17, .rng = Rng(1)};
  const at::Tensor scores = criterion("obs").ffn(part);
  const std::vector<std::int64_t> kept = keep_best(scores, 17);
  for (const std::int64_t k : kept) EXPECT_EQ(std::count(trace.removed.begin(), trace.removed.end(), k), 0);
  EXPECT_EQ(scores[trace.removed[0]].item<double>(), 0);
}

TEST(Obs, HeadsLeaveEveryGroupEqually) {
  const Problem p = problem(6, 36, 7);
  const KvPart part{.o = p.w, .inputs = {.gram = p.gram}, .groups = 3, .heads = 4, .keep = 1, .rng = Rng(1)};
  const at::Tensor scores = criterion("obs").heads(part);
  const ObsTrace trace = obs_trace(p.w, p.gram, 12, 1, 12, kObsRidge, "x", 4);
  for (std::int64_t g = 0; g < 3; ++g) {
    EXPECT_EQ(std::count_if(trace.removed.begin(), trace.removed.end(), [&](std::int64_t r) { return r / 4 == g; }), 3);
    const std::int64_t stayed = 4 * g + keep_best(scores[g], 1)[0];
    EXPECT_EQ(std::count(trace.removed.begin(), trace.removed.end(), stayed), 0);
  }
}

TEST(Obs, TwinsGoFirstAndKeepingAllRemovesNothing) {
  Problem p = problem(5, 10, 2);
  p.gram = p.gram.index_select(0, at::tensor({0, 1, 2, 3, 4, 5, 6, 7, 8, 2}, at::kLong)).index_select(1, at::tensor({0, 1, 2, 3, 4, 5, 6, 7, 8, 2}, at::kLong));
  const ObsTrace one = obs_trace(p.w, p.gram, 10, 9, 1, 1e-6, "x");      // inputs 2 and 9 are the same
  EXPECT_TRUE(one.removed[0] == 2 || one.removed[0] == 9);
  EXPECT_TRUE(obs_trace(p.w, p.gram, 10, 10, 1, 1e-6, "x").removed.empty());
  EXPECT_EQ(obs_trace(p.w, p.gram, 10, 0, 3, 1e-6, "x").removed.size(), 10u);
}

TEST(Obs, SameBytesForOneTwoAndThreeThreads) {
  const Problem p = problem(64, 600, 4);
  std::vector<double> first;
  for (const int threads : {1, 2, 3}) {
    at::set_num_threads(threads);
    const ObsTrace trace = obs_trace(p.w, p.gram, 600, 400, 16, 1e-2, "x");
    const double* left = trace.left.const_data_ptr<double>();
    std::vector<double> now(left, left + 600);
    now.insert(now.end(), trace.error.begin(), trace.error.end());
    now.insert(now.end(), trace.removed.begin(), trace.removed.end());
    if (first.empty()) first = now;
    EXPECT_EQ(now, first) << threads << " threads";
  }
  at::set_num_threads(1);
}

}  // namespace
}  // namespace slmc::pruning
