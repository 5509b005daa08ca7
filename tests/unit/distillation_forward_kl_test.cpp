// Forward KL: each law of forward_kl.h, and its gradient against fp64 autograd of the definition.
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <limits>

#include "core/error.h"
#include "distillation/losses/forward_kl.h"
#include "train_testing.h"

namespace slmc::distillation {
namespace {

using engine::head_loss;
using engine::HeadLoss;
using slmc::testing::integers;
using slmc::testing::max_difference;
using slmc::testing::normal;
using slmc::testing::relative_difference;

const std::vector<ForwardKlSettings> kSettings{{1.0, 1.0}, {1.0, 0.9}, {1.0, 0.0}, {2.0, 1.0}, {3.0, 0.5}, {0.5, 0.7}};

// Rounding of fp32 logits, which a temperature below 1 enlarges before the softmax sees it.
double fp32_tolerance(const ForwardKlSettings& s) { return 1e-6 / std::min(1.0, s.temperature); }

struct Problem {
  at::Tensor hidden, head, target, teacher;    // [n, D] [V, D] [n] [n, V_T] logits

  Problem(std::int64_t rows, std::int64_t vocab, std::int64_t teacher_vocab, std::uint64_t seed)
      : hidden(normal({rows, 12}, seed)), head(normal({vocab, 12}, seed + 1)), target(integers(vocab, {rows}, seed + 2)),
        teacher(normal({rows, teacher_vocab}, seed + 3, 3.0)) {}

  struct Result {
    std::vector<double> sums;
    at::Tensor d_hidden, d_head;
  };

  Result fused(const ForwardKlSettings& settings, at::ScalarType type = at::kFloat, std::int64_t chunk = 0, double upstream = 1.0) const {
    const at::Tensor logits = teacher.to(type);
    const engine::TeacherLogits fill{logits.size(1), [&](const at::Tensor& rows, at::Tensor out) { out.copy_(logits.index_select(0, rows)); }};
    at::Tensor h = hidden.to(type, false, true).requires_grad_(), w = head.to(type, false, true).requires_grad_();
    const HeadLoss out = head_loss({.hidden = h, .head = w, .target = target, .teacher = &fill, .chunk = chunk}, ForwardKl(settings));
    out.loss.mul(upstream).backward();
    return {out.sums, h.grad(), w.grad()};
  }

  // The definition of forward_kl.h, written out; autograd in fp64.
  Result exact(const ForwardKlSettings& s, double upstream = 1.0) const {
    at::Tensor h = hidden.to(at::kDouble, false, true).requires_grad_(), w = head.to(at::kDouble, false, true).requires_grad_();
    const at::Tensor counted = target.ge(0).nonzero().squeeze(1);
    const at::Tensor z = h.matmul(w.t()).index_select(0, counted);
    const std::int64_t shared = std::min(w.size(0), teacher.size(1));
    const at::Tensor p = teacher.to(at::kDouble).index_select(0, counted).narrow(1, 0, shared).div(s.temperature).softmax(1);
    const at::Tensor q = z.narrow(1, 0, shared).div(s.temperature).softmax(1);
    const at::Tensor terms = at::where(p.gt(0), p.mul(p.log().sub(q.log())), at::zeros_like(p));     // 0 log 0 = 0
    const at::Tensor kl = terms.sum().mul(s.temperature * s.temperature);
    const at::Tensor ce = z.softmax(1).log().gather(1, target.index_select(0, counted).unsqueeze(1)).sum().neg();
    const at::Tensor loss = kl.mul(s.kl_weight).add(ce.mul(1 - s.kl_weight));
    loss.mul(upstream).backward();
    return {{loss.item<double>(), kl.item<double>(), ce.item<double>()}, h.grad(), w.grad()};
  }
};

void expect_near(const Problem::Result& got, const Problem::Result& want, double tolerance) {
  for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(got.sums[i], want.sums[i], tolerance * std::max(1.0, std::abs(want.sums[i]))) << i;
  EXPECT_LE(relative_difference(got.d_hidden, want.d_hidden), tolerance);
  EXPECT_LE(relative_difference(got.d_head, want.d_head), tolerance);
}

TEST(ForwardKl, EqualsAutogradOfTheDefinition) {
  for (const auto& [rows, vocab, teacher_vocab] : {std::tuple{1, 2, 2}, {7, 61, 61}, {31, 1537, 1537}, {9, 517, 600}, {9, 600, 517}}) {
    const Problem p(rows, vocab, teacher_vocab, vocab);
    for (const ForwardKlSettings& s : kSettings) {
      SCOPED_TRACE(::testing::Message() << rows << " rows, " << vocab << " and " << teacher_vocab << " tokens, temperature " << s.temperature
                                      << ", KL weight " << s.kl_weight);
      const Problem::Result want = p.exact(s, 0.625);
      expect_near(p.fused(s, at::kFloat, 0, 0.625), want, fp32_tolerance(s));
      expect_near(p.fused(s, at::kDouble, 0, 0.625), want, 1e-12);
    }
  }
}

TEST(ForwardKl, L1StudentEqualToTeacherGivesExactlyNothing) {
  for (const double temperature : {0.5, 1.0, 1.7, 4.0}) {
    for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
      const at::Tensor z = normal({9, 777}, 4, 5.0, type), teacher = z.clone(), sums = at::zeros_like(z[0].slice(0, 0, 3), at::kDouble);
      ForwardKl({temperature, 1.0}).apply(z, teacher, integers(777, {9}, 5), 1.0, sums);
      EXPECT_EQ(sums[0].item<double>(), 0.0);
      EXPECT_EQ(sums[1].item<double>(), 0.0);
      EXPECT_EQ(z.abs().max().item<double>(), 0.0);
    }
  }
}

TEST(ForwardKl, L2IsNeverNegative) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {       // nearly equal distributions: where rounding would show
    const at::Tensor z = normal({1, 300}, seed, 4.0), teacher = z.add(normal({1, 300}, seed + 1000, 1e-7));
    const at::Tensor sums = at::zeros_like(z[0].slice(0, 0, 3), at::kDouble);
    ForwardKl({1.0 + static_cast<double>(seed % 3), 1.0}).apply(z, teacher, integers(300, {1}, seed), 1.0, sums);
    EXPECT_GE(sums[1].item<double>(), 0.0);
    EXPECT_LE(sums[1].item<double>(), 1e-6);
  }
}

TEST(ForwardKl, L3ConstantsOfARowChangeNothing) {
  for (const ForwardKlSettings& s : kSettings) {
    const at::Tensor z = normal({3, 500}, 1, 3.0, at::kDouble).round().to(at::kFloat), t = normal({3, 500}, 2, 3.0, at::kDouble).round().to(at::kFloat);
    const at::Tensor y = integers(500, {3}, 3);            // whole numbers: adding 64 is exact, so equality is too
    at::Tensor moved_z = z.add(64), moved_t = t.sub(32), sums = at::zeros_like(z[0].slice(0, 0, 3), at::kDouble), moved_sums = sums.clone();
    at::Tensor plain_z = z.clone();
    ForwardKl(s).apply(plain_z, t.clone(), y, 1.0, sums);
    ForwardKl(s).apply(moved_z, moved_t, y, 1.0, moved_sums);
    EXPECT_TRUE(sums.equal(moved_sums));
    EXPECT_TRUE(plain_z.equal(moved_z));
  }
}

TEST(ForwardKl, L4RowsLeftOutGiveNothing) {
  Problem p(40, 301, 301, 6);
  p.target.slice(0, 1, 40, 3).fill_(-1);
  for (const ForwardKlSettings& s : kSettings) {
    const Problem::Result got = p.fused(s, at::kFloat, 9);
    expect_near(got, p.exact(s), fp32_tolerance(s));
    EXPECT_EQ(got.d_hidden.slice(0, 1, 40, 3).abs().max().item<float>(), 0.0f);
  }
}

TEST(ForwardKl, L5AnyChunkSizeGivesTheSame) {
  const Problem p(129, 301, 301, 7);
  for (const ForwardKlSettings& s : kSettings) {
    const Problem::Result whole = p.fused(s, at::kFloat, 129);
    for (const std::int64_t chunk : {1, 7, 64, 65, 128, 130}) {
      SCOPED_TRACE(chunk);
      expect_near(p.fused(s, at::kFloat, chunk), whole, 1e-6);
    }
  }
}

TEST(ForwardKl, L6ZeroProbabilities) {
  const float none = -std::numeric_limits<float>::infinity();
  for (const ForwardKlSettings& s : kSettings) {
    for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
      Problem p(4, 40, 40, 8);
      p.teacher.select(1, 5).fill_(none);                  // p = 0: that token only lowers q
      Problem without(4, 40, 40, 8);
      without.teacher.select(1, 5).fill_(-1e4);            // the same, with a finite logit far below
      expect_near(p.fused(s, type), without.exact({s.temperature, s.kl_weight}), fp32_tolerance(s));
    }
    at::Tensor z = normal({2, 40}, 1), t = normal({2, 40}, 2), sums = at::zeros_like(z[0].slice(0, 0, 3), at::kDouble);
    z[1][7] = none;
    ForwardKl(s).apply(z, t, integers(7, {2}, 3), 1.0, sums);
    EXPECT_EQ(sums[1].item<double>(), std::numeric_limits<double>::infinity());   // head_loss turns it into Error(Numeric)
    EXPECT_FALSE(z.isnan().any().item<bool>());
  }
  Problem p(4, 40, 40, 9);
  p.head[3].fill_(std::numeric_limits<float>::quiet_NaN());
  EXPECT_THROW((void)p.fused({1.0, 1.0}), Error);
  EXPECT_THROW((void)p.fused({2.0, 0.5}), Error);
}

TEST(ForwardKl, WorkedByHand) {
  // p = (3/4, 1/4), q = (1/2, 1/2): KL = 3/4 ln(3/2) + 1/4 ln(1/2), dL/dz = q - p, cross-entropy ln 2.
  at::Tensor z = at::zeros_like(normal({1, 2}, 0)), t = z.clone(), sums = at::zeros_like(normal({3}, 0), at::kDouble);
  t[0][0] = std::log(3.0f);
  ForwardKl({1.0, 1.0}).apply(z, t, integers(1, {1}, 0), 1.0, sums);
  EXPECT_NEAR(sums[0].item<double>(), 0.75 * std::log(1.5) + 0.25 * std::log(0.5), 1e-7);
  EXPECT_NEAR(sums[2].item<double>(), std::log(2.0), 1e-7);
  EXPECT_NEAR(z[0][0].item<double>(), -0.25, 1e-7);
  EXPECT_NEAR(z[0][1].item<double>(), 0.25, 1e-7);
}

TEST(ForwardKl, TeacherHeadMakesTheLogitsOfItsRows) {
  const Problem p(23, 50, 50, 10);
  const at::Tensor hidden = normal({23, 6}, 20), head = normal({55, 6}, 21);
  Problem plain = p;
  plain.teacher = hidden.matmul(head.t()).narrow(1, 0, 50);
  plain.target.slice(0, 4, 9).fill_(-1);
  const engine::TeacherLogits teacher = engine::teacher_head(hidden, head, 50);
  const at::Tensor h = plain.hidden.clone().requires_grad_();
  const HeadLoss out = head_loss({.hidden = h, .head = plain.head, .target = plain.target, .teacher = &teacher, .chunk = 5}, ForwardKl({1.0, 0.9}));
  EXPECT_NEAR(out.sums[0], plain.exact({1.0, 0.9}).sums[0], 1e-4);
  EXPECT_EQ(out.rows, 18);
}

}  // namespace
}  // namespace slmc::distillation
