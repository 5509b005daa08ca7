// Oracle: the samples themselves, by Eigen's QR with the ridge as extra rows; never a Gram matrix, a Cholesky or a closed form.
#include "engine/solve.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <Eigen/Dense>
#include <numeric>

#include "core/error.h"
#include "core/rng.h"

namespace slmc::engine {
namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

at::Tensor tensor(const Matrix& m) {
  at::Tensor t = at::empty({m.rows(), m.cols()}, at::kDouble);
  std::copy(m.data(), m.data() + m.size(), t.mutable_data_ptr<double>());
  return t;
}

Matrix matrix(const at::Tensor& t) {
  const at::Tensor c = t.contiguous();
  return Eigen::Map<const Matrix>(c.const_data_ptr<double>(), c.size(0), c.size(1));
}

Matrix random(std::int64_t rows, std::int64_t cols, std::uint64_t seed) {
  const Rng rng(seed);
  Matrix m(rows, cols);
  for (std::int64_t i = 0; i < m.size(); ++i) m.data()[i] = rng.normal(i);
  return m;
}

// Inputs of a layer: correlated, with means, channels of very different size.
Matrix inputs(std::int64_t samples, std::int64_t n, std::uint64_t seed) {
  Matrix x = random(samples, n, seed) * random(n, n, seed + 1) / std::sqrt(static_cast<double>(n)) + 0.7 * random(samples, n, seed + 2);
  for (std::int64_t j = 0; j < n; ++j) x.col(j) = (x.col(j).array() + 0.2).matrix() * std::exp(0.5 * std::sin(3.0 * static_cast<double>(j)));
  return x;
}

at::Tensor gram(const Matrix& x) { return tensor(x.transpose() * x / static_cast<double>(x.rows())); }

std::vector<std::int64_t> every(std::int64_t n, std::int64_t step, std::int64_t first = 0) {
  std::vector<std::int64_t> v;
  for (std::int64_t i = first; i < n; i += step) v.push_back(i);
  return v;
}

Matrix columns(const Matrix& m, const std::vector<std::int64_t>& which) {
  Matrix out(m.rows(), static_cast<std::int64_t>(which.size()));
  for (std::size_t j = 0; j < which.size(); ++j) out.col(static_cast<std::int64_t>(j)) = m.col(which[j]);
  return out;
}

// argmin_W' mean |targets - x W'ᵀ|² + ridge |W' - W0|², from the samples.
Matrix ridge_by_qr(const Matrix& x, const Matrix& targets, const Matrix& w0, double ridge) {
  const std::int64_t n = x.cols(), m = x.rows();
  const double s = std::sqrt(ridge * static_cast<double>(m));
  Matrix a(m + n, n), b(m + n, targets.cols());
  a << x, s * Matrix::Identity(n, n);
  b << targets, s * w0.transpose();
  return a.colPivHouseholderQr().solve(b).transpose();
}

double mean_diagonal(const Matrix& x) { return x.squaredNorm() / static_cast<double>(x.rows() * x.cols()); }

TEST(Solve, KeepingAllIsExactlyTheIdentity) {
  const Matrix x = inputs(200, 37, 1);
  const at::Tensor w = tensor(random(5, 37, 4)).to(at::kFloat);
  for (const double ridge : {0.0, 1e-4, 1.0}) {
    EXPECT_TRUE(at::equal(refit_kept(w, gram(x), every(37, 1), ridge, "w").to(at::kFloat), w));
  }
}

TEST(Solve, CentredFitOfNoResidualIsExactlyTheStart) {
  const Matrix x = inputs(200, 37, 1);
  const at::Tensor w = tensor(random(5, 37, 4));
  EXPECT_TRUE(at::equal(centred_fit(w, at::zeros({5, 37}, at::kDouble), factor(gram(x), 0.1, "w")), w));
}

TEST(Solve, TwoInputsByHand) {
  // x = (a, a): the second input repeats the first, so removing it moves its weight over. A = [[1, 1], [1, 1]], W = [2, 3] -> [5].
  const at::Tensor a = tensor(Matrix::Ones(2, 2)), w = tensor((Matrix(1, 2) << 2, 3).finished());
  EXPECT_DOUBLE_EQ(refit_kept(w, a, {0}, 0, "w").item<double>(), 5);
  // With ridge 1 (mean diagonal of A_KK is 1): 2 + 3 / (1 + 1).
  EXPECT_DOUBLE_EQ(refit_kept(w, a, {0}, 1, "w").item<double>(), 3.5);
}

TEST(Solve, RefitEqualsLeastSquaresOnTheSamples) {
  for (const std::int64_t n : {2, 31, 64, 97}) {
    for (const double ridge : {0.0, 1e-3, 0.3}) {
      SCOPED_TRACE(testing::Message() << "n " << n << " ridge " << ridge);
      const Matrix x = inputs(4 * n, n, 10 + n), w = random(70, n, 20 + n);
      const auto kept = every(n, 2);
      const Matrix x_k = columns(x, kept);
      const Matrix oracle = ridge_by_qr(x_k, x * w.transpose(), columns(w, kept), ridge * mean_diagonal(x_k));
      const Matrix got = matrix(refit_kept(tensor(w), gram(x), kept, ridge, "w"));
      EXPECT_LE((got - oracle).cwiseAbs().maxCoeff(), 1e-8 * oracle.cwiseAbs().maxCoeff());
    }
  }
}

TEST(Solve, CentredFitEqualsLeastSquaresOnTheSamples) {
  const Matrix x = inputs(300, 41, 7), targets = random(300, 9, 8), w0 = random(9, 41, 9);
  const Matrix r = (targets - x * w0.transpose()).transpose() * x / 300.0;
  const Matrix oracle = ridge_by_qr(x, targets, w0, 0.02 * mean_diagonal(x));
  const Matrix got = matrix(centred_fit(tensor(w0), tensor(r), factor(gram(x), 0.02, "x")));
  EXPECT_LE((got - oracle).cwiseAbs().maxCoeff(), 1e-9);
}

TEST(Solve, ErrorsEqualSumsOverSamples) {
  const Matrix x = inputs(150, 33, 3), w = random(70, 33, 4);
  const double whole = (x * w.transpose()).squaredNorm() / 150;
  EXPECT_NEAR(output_error(tensor(w), gram(x)), whole, 1e-10 * whole);
  const auto kept = every(33, 3);
  const Matrix w_k = random(70, static_cast<std::int64_t>(kept.size()), 5);
  const double change = (x * w.transpose() - columns(x, kept) * w_k.transpose()).squaredNorm() / 150;
  EXPECT_NEAR(removal_error(tensor(w), gram(x), kept, tensor(w_k)), change / whole, 1e-9 * change / whole);
}

TEST(Solve, RefitIsNeverWorseThanPlainRemoval) {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    const Matrix x = inputs(500, 48, 100 + seed), w = random(16, 48, 200 + seed);
    const auto kept = every(48, 4, 1);
    const at::Tensor a = gram(x);
    EXPECT_LT(removal_error(tensor(w), a, kept, refit_kept(tensor(w), a, kept, 1e-6, "w")),
              removal_error(tensor(w), a, kept, tensor(columns(w, kept))));
  }
}

TEST(Solve, DeadInputsKeepTheirWeightAndChangeNothing) {
  Matrix x = inputs(100, 12, 1);
  x.col(3).setZero();
  x.col(4).setZero();
  const Matrix w = random(6, 12, 2);
  std::vector<std::int64_t> kept = {0, 2, 3, 7, 8, 11}, alive = {0, 2, 7, 8, 11};
  const Matrix got = matrix(refit_kept(tensor(w), gram(x), kept, 1e-3, "w"));
  EXPECT_EQ((got.col(2) - w.col(3)).cwiseAbs().maxCoeff(), 0);
  const Matrix without = matrix(refit_kept(tensor(w), gram(x), alive, 1e-3, "w"));
  EXPECT_LE((got.col(0) - without.col(0)).cwiseAbs().maxCoeff(), 1e-12);
}

TEST(Solve, RankDeficientGramEscalatesTheRidgeAndSaysSo) {
  const Matrix x = inputs(10, 40, 5);                     // ten samples of forty inputs
  const Cholesky f = factor(gram(x), 0, "x");
  EXPECT_TRUE(f.escalated);
  EXPECT_GT(f.ridge, 0);
  EXPECT_LE(f.ridge, 0.1);
  EXPECT_FALSE(factor(gram(x), 0.01, "x").escalated);
}

TEST(Solve, WhatCannotBeSolvedIsRefusedByName) {
  const at::Tensor indefinite = at::eye(3, at::kDouble) * -1.0;
  for (const at::Tensor& a : {indefinite, at::eye(3, at::kDouble) * std::nan("")}) {
    try {
      factor(a, 0.01, "block.3.ffn.down.in");
      FAIL() << "accepted";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::Numeric);
      EXPECT_NE(e.message().find("block.3.ffn.down.in"), std::string::npos);
    }
  }
}

TEST(Solve, SameBytesForOneTwoAndThreeThreads) {
  const Matrix x = inputs(900, 300, 1), w = random(200, 300, 2);
  const at::Tensor a = gram(x);
  at::Tensor first;
  for (const int threads : {1, 2, 3}) {
    at::set_num_threads(threads);
    const at::Tensor got = refit_kept(tensor(w), a, every(300, 2), 1e-3, "w");
    if (!first.defined()) first = got;
    EXPECT_TRUE(at::equal(got, first)) << threads << " threads";
    EXPECT_EQ(at::get_num_threads(), threads);
  }
  at::set_num_threads(1);
}

}  // namespace
}  // namespace slmc::engine
