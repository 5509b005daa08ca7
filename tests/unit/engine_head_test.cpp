// Running softmax sums against fp64 loops, and what is taken from logits without logits against full log-softmax.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/mm.h>

#include <cmath>
#include <limits>

#include "engine/head.h"
#include "engine/row_sums.h"
#include "tests/unit/engine_testing.h"
#include "tests/unit/error_text.h"

namespace slmc::engine {
namespace {

constexpr float kClosed = -std::numeric_limits<float>::infinity();

std::vector<float> random_floats(std::size_t n, double spread, std::uint64_t seed) {
  std::vector<float> z(n);
  for (std::size_t i = 0; i < n; ++i) z[i] = static_cast<float>(spread * Rng(seed).normal(i));
  return z;
}

struct Exact {                               // fp64, the definition
  double lse_p = 0, lse_q = 0, kl = 0;
  std::int64_t top = 0;
};

Exact exact(const std::vector<float>& p, const std::vector<float>& q) {
  const auto lse = [](const std::vector<float>& z) {
    const double most = *std::max_element(z.begin(), z.end());
    double sum = 0;
    for (const float x : z) sum += std::exp(static_cast<double>(x) - most);
    return most + std::log(sum);
  };
  Exact e{lse(p), lse(q), 0, std::max_element(p.begin(), p.end()) - p.begin()};
  for (std::size_t i = 0; i < p.size(); ++i) {
    if (p[i] == kClosed) continue;
    const double log_p = static_cast<double>(p[i]) - e.lse_p, log_q = static_cast<double>(q[i]) - e.lse_q;
    e.kl += std::exp(log_p) * (log_p - log_q);
  }
  return e;
}

TEST(RowSums, EqualFp64ForAnyTiling) {
  for (const std::size_t n : {1u, 2u, 15u, 16u, 17u, 1000u, 40003u}) {
    for (const double spread : {0.01, 3.0, 30.0}) {
      const std::vector<float> p = random_floats(n, spread, 1), q = random_floats(n, spread, 2);
      const Exact want = exact(p, q);
      for (const std::size_t tile : {std::size_t{7}, std::size_t{4096}, n}) {
        RowDivergence row;
        for (std::size_t c = 0; c < n; c += tile) {
          add_columns(row, p.data() + c, q.data() + c, static_cast<std::int64_t>(std::min(tile, n - c)), static_cast<std::int64_t>(c));
        }
        SCOPED_TRACE(std::to_string(n) + " columns, tiles of " + std::to_string(tile) + ", spread " + std::to_string(spread));
        EXPECT_NEAR(row.p.log_sum_exp(), want.lse_p, 2e-7 * (1 + std::abs(want.lse_p)));
        EXPECT_NEAR(row.q.log_sum_exp(), want.lse_q, 2e-7 * (1 + std::abs(want.lse_q)));
        EXPECT_NEAR(row.kl(), want.kl, 2e-6 * (1 + spread));
        EXPECT_EQ(row.p.at, want.top);
      }
    }
  }
}

TEST(RowSums, ClosedColumnsAndFarOnesAddNothing) {
  std::vector<float> p = random_floats(100, 2, 3), q = random_floats(100, 2, 4);
  const std::vector<float> front_p(p.begin(), p.begin() + 50), front_q(q.begin(), q.begin() + 50);
  for (std::size_t i = 50; i < 100; ++i) p[i] = q[i] = i % 2 ? kClosed : -1000.0f;
  RowDivergence row;
  add_columns(row, p.data() + 50, q.data() + 50, 50, 50);        // the hopeless half first: sums are rebased
  add_columns(row, p.data(), q.data(), 50, 0);
  const Exact want = exact(front_p, front_q);
  EXPECT_NEAR(row.p.log_sum_exp(), want.lse_p, 1e-6);
  EXPECT_NEAR(row.kl(), want.kl, 1e-6);
  RowSum closed;
  const float all_closed[3] = {kClosed, kClosed, kClosed};
  add_columns(closed, all_closed, 3, 0);
  EXPECT_EQ(closed.log_sum_exp(), kClosed);
}

TEST(RowSums, TheFirstOfEqualLogitsIsTheTopOne) {
  std::vector<float> z(50, 1.0f);
  z[7] = z[31] = 2.0f;
  RowSum row;
  add_columns(row, z.data(), 20, 0);
  add_columns(row, z.data() + 20, 30, 20);
  EXPECT_EQ(row.at, 7);
}

TEST(RowSums, NotANumberIsKept) {
  std::vector<float> z = random_floats(40, 1, 5);
  z[21] = std::numeric_limits<float>::quiet_NaN();
  RowSum row;
  add_columns(row, z.data(), 40, 0);
  EXPECT_TRUE(std::isnan(row.log_sum_exp()));
}

struct Sides {
  Head p, q;
  at::Tensor rows_p, rows_q, targets;
};

// Sizes around the tiles of head.cpp: 2048 rows, 4096 columns.
Sides sides(std::int64_t rows, std::int64_t vocab, at::ScalarType type) {
  return {{random_tensor({vocab, 24}, 1).to(type), {}}, {random_tensor({vocab, 16}, 2).to(type), {}}, random_tensor({rows, 24}, 3).to(type),
          random_tensor({rows, 16}, 4).to(type), random_ids({rows}, vocab, 5)};
}

at::Tensor full_log_softmax(const Head& head, const at::Tensor& rows) {
  const at::Tensor z = at::mm(rows.to(at::kDouble), head.weight.to(at::kDouble).t());
  return at::log_softmax(head.log_gate.defined() ? z + head.log_gate : z, -1);
}

TEST(Head, EqualsFullLogSoftmax) {
  for (const auto& [rows, vocab] : std::vector<std::pair<std::int64_t, std::int64_t>>{{1, 5}, {33, 4097}, {2049, 300}, {7, 9000}}) {
    for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
      SCOPED_TRACE(std::to_string(rows) + " rows, vocabulary of " + std::to_string(vocab));
      const Sides s = sides(rows, vocab, type);
      const at::Tensor log_p = full_log_softmax(s.p, s.rows_p), log_q = full_log_softmax(s.q, s.rows_q);
      const at::Tensor target_p = log_p.gather(1, s.targets.unsqueeze(1)).squeeze(1);
      EXPECT_LE(difference(target_log_probs(s.p, s.rows_p, s.targets), target_p), 2e-5);
      EXPECT_TRUE(likeliest(s.p, s.rows_p).equal(log_p.argmax(1).to(at::kCPU)));
      const Comparison c = compare(s.p, s.rows_p, s.q, s.rows_q, s.targets);
      EXPECT_LE(difference(c.kl, (log_p.exp() * (log_p - log_q)).sum(1)), 1e-4);
      EXPECT_LE(difference(c.log_prob_p, target_p), 2e-5);
      EXPECT_LE(difference(c.log_prob_q, log_q.gather(1, s.targets.unsqueeze(1)).squeeze(1)), 2e-5);
      EXPECT_TRUE(c.same_top.equal((log_p.argmax(1) == log_q.argmax(1)).to(at::kCPU)));
    }
  }
}

TEST(Head, AModelIsAtNoDistanceFromItself) {
  const Sides s = sides(50, 5000, at::kFloat);
  const Comparison c = compare(s.p, s.rows_p, s.p, s.rows_p, s.targets);
  EXPECT_LE(c.kl.abs().max().item<double>(), 1e-12);
  EXPECT_TRUE(c.same_top.all().item<bool>());
  EXPECT_TRUE(c.log_prob_p.equal(c.log_prob_q));
}

TEST(Head, ClosedVocabularyIsLeftOut) {
  Sides s = sides(9, 5000, at::kFloat);
  s.p.log_gate = at::full({5000}, 0.0, s.p.weight.options());
  s.p.log_gate.narrow(0, 0, 4500).fill_(kClosed);
  const at::Tensor targets = random_ids({9}, 500, 6) + 4500;
  Head small;
  small.weight = s.p.weight.narrow(0, 4500, 500);
  EXPECT_LE(difference(target_log_probs(s.p, s.rows_p, targets), target_log_probs(small, s.rows_p, targets - 4500)), 1e-6);
  EXPECT_TRUE(likeliest(s.p, s.rows_p).equal(likeliest(small, s.rows_p) + 4500));
}

TEST(Head, OtherVocabulariesAreRefused) {
  const Sides a = sides(2, 10, at::kFloat), b = sides(2, 11, at::kFloat);
  EXPECT_EQ(error_text([&] { (void)compare(a.p, a.rows_p, b.q, b.rows_q, a.targets); }),
            "error: the vocabulary of both models must be the same to compare their predictions, but is 10 and 11 tokens");
}

}  // namespace
}  // namespace slmc::engine
