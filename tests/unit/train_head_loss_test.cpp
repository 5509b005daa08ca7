// The fused head and cross-entropy against fp64 autograd on the whole logit matrix, which shares no line with it.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/embedding.h>
#include <gtest/gtest.h>

#include <limits>
#include <tuple>

#include "core/error.h"
#include "engine/train/cross_entropy.h"
#include "train_testing.h"

namespace slmc::engine {
namespace {

using slmc::testing::integers;
using slmc::testing::max_difference;
using slmc::testing::normal;
using slmc::testing::relative_difference;

// Sum over rows with target >= 0 of -log softmax(hidden head^T)[target], in fp64.
at::Tensor oracle(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& target) {
  const at::Tensor rows = target.ge(0).nonzero().squeeze(1);
  const at::Tensor log_q = hidden.matmul(head.t()).log_softmax(1).index_select(0, rows);
  return log_q.gather(1, target.index_select(0, rows).unsqueeze(1)).sum().neg();
}

struct Problem {
  at::Tensor hidden, head, target;

  Problem(std::int64_t rows, std::int64_t width, std::int64_t vocab, std::uint64_t seed)
      : hidden(normal({rows, width}, seed)), head(normal({vocab, width}, seed + 1, 3.0 / std::sqrt(double(width)))),
        target(integers(vocab, {rows}, seed + 2)) {}

  // loss, d hidden, d head of the fused path, with an upstream gradient.
  std::tuple<at::Tensor, at::Tensor, at::Tensor> fused(at::ScalarType type, std::int64_t chunk, double scale, double upstream) const {
    at::Tensor h = hidden.to(type, false, true).requires_grad_(), w = head.to(type, false, true).requires_grad_();
    HeadLoss out = head_loss({.hidden = h, .head = w, .target = target, .scale = scale, .chunk = chunk}, CrossEntropy());
    out.loss.mul(upstream).backward();
    return {out.loss.detach(), h.grad(), w.grad()};
  }

  std::tuple<at::Tensor, at::Tensor, at::Tensor> exact(double scale, double upstream) const {
    at::Tensor h = hidden.to(at::kDouble, false, true).requires_grad_(), w = head.to(at::kDouble, false, true).requires_grad_();
    const at::Tensor loss = oracle(h, w, target).mul(scale);
    loss.mul(upstream).backward();
    return {loss.detach(), h.grad(), w.grad()};
  }
};

TEST(HeadLoss, EqualsAutogradInFp64) {
  for (const auto& [rows, width, vocab] : {std::tuple{1, 3, 2}, {7, 5, 11}, {33, 16, 509}, {64, 24, 1537}}) {
    const Problem p(rows, width, vocab, 10 * rows);
    const auto [loss, dh, dw] = p.exact(0.25, -1.75);
    for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
      SCOPED_TRACE(std::to_string(rows) + " rows, vocabulary " + std::to_string(vocab) + (type == at::kFloat ? ", fp32" : ", fp64"));
      const auto [loss2, dh2, dw2] = p.fused(type, 0, 0.25, -1.75);
      const double tolerance = type == at::kFloat ? 1e-6 : 1e-14;
      EXPECT_LE(max_difference(loss2, loss), tolerance * rows);
      EXPECT_LE(max_difference(dh2, dh), tolerance);
      EXPECT_LE(max_difference(dw2, dw), tolerance);
    }
  }
}

TEST(HeadLoss, EqualsFiniteDifferences) {
  const Problem p(5, 4, 13, 3);
  const auto [loss, dh, dw] = p.fused(at::kDouble, 2, 1.0, 1.0);
  const double step = 1e-5;
  for (std::int64_t i = 0; i < p.hidden.numel(); ++i) {
    at::Tensor up = p.hidden.to(at::kDouble, false, true), down = up.clone();
    up.view({-1})[i].add_(step);
    down.view({-1})[i].sub_(step);
    const at::Tensor head = p.head.to(at::kDouble);
    const double slope = (oracle(up, head, p.target).item<double>() - oracle(down, head, p.target).item<double>()) / (2 * step);
    EXPECT_NEAR(dh.reshape({-1})[i].item<double>(), slope, 1e-7);
  }
}

TEST(HeadLoss, H1AnyChunkSizeGivesTheSame) {
  const Problem p(129, 8, 301, 5);
  const auto [loss, dh, dw] = p.fused(at::kFloat, 129, 1.0 / 129, 1.0);
  for (const std::int64_t chunk : {1, 7, 64, 65, 128, 130, 1000}) {
    SCOPED_TRACE(chunk);
    const auto [loss2, dh2, dw2] = p.fused(at::kFloat, chunk, 1.0 / 129, 1.0);
    EXPECT_LE(relative_difference(loss2, loss), 1e-6);
    EXPECT_LE(relative_difference(dh2, dh), 1e-6);
    EXPECT_LE(relative_difference(dw2, dw), 1e-6);
  }
}

TEST(HeadLoss, H2RowsLeftOutGiveNothing) {
  Problem p(40, 8, 301, 6);
  p.target.slice(0, 0, 40, 3).fill_(-1);
  const auto [loss, dh, dw] = p.exact(1.0, 1.0);
  const auto [loss2, dh2, dw2] = p.fused(at::kFloat, 9, 1.0, 1.0);
  EXPECT_LE(relative_difference(loss2, loss), 1e-6);
  EXPECT_LE(relative_difference(dh2, dh), 1e-6);
  EXPECT_LE(relative_difference(dw2, dw), 1e-6);
  EXPECT_EQ(dh2.slice(0, 0, 40, 3).abs().max().item<float>(), 0.0f);

  p.target.fill_(-1);
  const auto [loss3, dh3, dw3] = p.fused(at::kFloat, 0, 1.0, 1.0);
  EXPECT_EQ(loss3.item<double>(), 0.0);
  EXPECT_EQ(dh3.abs().max().item<float>(), 0.0f);
  EXPECT_EQ(dw3.abs().max().item<float>(), 0.0f);
}

TEST(HeadLoss, H3FrozenSidesGetNoGradient) {
  const Problem p(20, 8, 97, 7);
  at::Tensor h = p.hidden.clone().requires_grad_(), w = p.head.clone();
  head_loss({.hidden = h, .head = w, .target = p.target}, CrossEntropy()).loss.backward();
  EXPECT_FALSE(w.grad().defined());
  EXPECT_LE(relative_difference(h.grad(), std::get<1>(p.exact(1, 1))), 1e-6);

  at::Tensor h2 = p.hidden.clone(), w2 = p.head.clone().requires_grad_();
  head_loss({.hidden = h2, .head = w2, .target = p.target}, CrossEntropy()).loss.backward();
  EXPECT_FALSE(h2.grad().defined());
  EXPECT_LE(relative_difference(w2.grad(), std::get<2>(p.exact(1, 1))), 1e-6);

  at::NoGradGuard off;
  EXPECT_FALSE(head_loss({.hidden = p.hidden, .head = p.head, .target = p.target}, CrossEntropy()).loss.requires_grad());
}

TEST(HeadLoss, TiedHeadAddsToTheEmbedding) {
  const Problem p(30, 8, 61, 8);
  const at::Tensor ids = integers(61, {30}, 99);
  at::Tensor w = p.head.clone().requires_grad_();
  head_loss({.hidden = at::embedding(w, ids), .head = w, .target = p.target}, CrossEntropy()).loss.backward();
  at::Tensor e = p.head.to(at::kDouble).clone().requires_grad_();
  oracle(at::embedding(e, ids), e, p.target).backward();
  EXPECT_LE(relative_difference(w.grad(), e.grad()), 1e-6);
}

TEST(HeadLoss, GradientsOfTwoPartsAddUp) {                 // 1 x 8 = 8 x 1 with ragged lengths starts here
  Problem p(50, 8, 61, 9);
  p.target.slice(0, 10, 17).fill_(-1);
  const double scale = 1.0 / p.target.ge(0).sum().item<double>();
  at::Tensor h = p.hidden.clone().requires_grad_(), w = p.head.clone().requires_grad_();
  for (const auto& [first, last] : {std::pair{0, 13}, {13, 14}, {14, 50}}) {
    head_loss({.hidden = h.slice(0, first, last), .head = w, .target = p.target.slice(0, first, last), .scale = scale}, CrossEntropy())
        .loss.backward();
  }
  const auto [loss, dh, dw] = p.exact(scale, 1.0);
  EXPECT_LE(relative_difference(h.grad(), dh), 1e-6);
  EXPECT_LE(relative_difference(w.grad(), dw), 1e-6);
}

TEST(HeadLoss, H4SecondDerivativesAreRefused) {
  const Problem p(4, 4, 7, 11);
  at::Tensor h = p.hidden.clone().requires_grad_();
  const HeadLoss out = head_loss({.hidden = h, .head = p.head, .target = p.target}, CrossEntropy());
  EXPECT_THROW(out.loss.backward({}, false, true), Error);
}

TEST(HeadLoss, RefusesWhatIsNotFinite) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Problem p(40, 4, 1030, 12);
    p.head[1029].fill_(bad);
    try {
      (void)p.fused(at::kFloat, 0, 1, 1);
      FAIL();
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::Numeric);
      EXPECT_NE(e.message().find("the loss must be finite, but is"), std::string::npos);
    }
  }
}

TEST(HeadLoss, RefusesTargetsOutsideTheVocabulary) {
  Problem p(4, 4, 7, 13);
  p.target[2] = 7;
  EXPECT_THROW((void)p.fused(at::kFloat, 0, 1, 1), Error);
}

TEST(HeadLoss, HalfPrecisionGivesTheLossOfItsOwnLogits) {
  const Problem p(16, 8, 61, 14);
  const at::Tensor h = p.hidden.to(at::kBFloat16), w = p.head.to(at::kBFloat16);
  const HeadLoss out = head_loss({.hidden = h, .head = w, .target = p.target}, CrossEntropy());
  const double exact = oracle(h.to(at::kDouble), w.to(at::kDouble), p.target).item<double>();
  EXPECT_NEAR(out.sums[0], exact, 16 * 10 * 0x1p-8);       // 16 rows, logits up to about 10, rounded to 8 bits
}

TEST(HeadLoss, ChunkRows) {
  EXPECT_EQ(chunk_rows(49152), 512);
  EXPECT_EQ(chunk_rows(151'936), 165);
  EXPECT_EQ(chunk_rows(1000), 512);
  EXPECT_EQ(chunk_rows(1'000'000), 32);
}

TEST(CrossEntropyRow, HandlesLogitsOfAnySize) {
  for (const float shift : {-3e4f, 0.0f, 3e4f}) {
    std::vector<float> z{shift + 1, shift + 2, shift - 200, shift + 4};
    const double loss = cross_entropy_row(z.data(), 4, 1, 1.0f);
    EXPECT_NEAR(loss, std::log(std::exp(-3.0) + std::exp(-2.0) + 1) + 2, 1e-6);
    EXPECT_EQ(z[2], 0.0f);
  }
}

}  // namespace
}  // namespace slmc::engine
