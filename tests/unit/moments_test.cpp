// Sums of activations against fp64 loops (Eigen), and their bytes for one, two and three threads.
#include "engine/moments.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <Eigen/Dense>

#include "core/rng.h"

namespace slmc::engine {
namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

at::Tensor activations(std::int64_t rows, std::int64_t columns, std::uint64_t seed) {
  const Rng rng(seed);
  at::Tensor t = at::empty({rows, columns}, at::kFloat);
  auto* p = t.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < t.numel(); ++i) {
    p[i] = static_cast<float>((rng.normal(i) + 0.3) * std::exp(2.0 * std::sin(static_cast<double>(i % columns))));
  }
  return t;
}

Matrix matrix(const at::Tensor& t) {
  const at::Tensor c = t.to(at::kDouble).contiguous();
  return Eigen::Map<const Matrix>(c.const_data_ptr<double>(), c.size(0), c.dim() > 1 ? c.size(1) : 1);
}

// Each entry against the product of its two standard deviations: large channels must not hide errors of small ones.
double relative(const Matrix& got, const Matrix& want, const Eigen::VectorXd& left, const Eigen::VectorXd& right) {
  return ((got - want).array() / (left * right.transpose()).array()).abs().maxCoeff();
}

TEST(Moments, GramEqualsLoopsOnAwkwardShapes) {
  for (const auto& [rows, columns] : {std::pair{1, 1}, {7, 5}, {2049, 257}, {300, 513}}) {
    const at::Tensor x = activations(rows, columns, 1);
    GramSum sum(columns, at::kCPU);
    sum.add(x);
    const Matrix m = matrix(x), want = m.transpose() * m / rows, got = matrix(sum.mean());
    const Eigen::VectorXd size = want.diagonal().cwiseSqrt();
    EXPECT_LE(relative(got, want, size, size), 1e-6) << rows << "x" << columns;
    EXPECT_EQ(got, Matrix(got.transpose()));
    EXPECT_EQ(sum.rows(), rows);
  }
}

TEST(Moments, BatchesAddUp) {
  const at::Tensor x = activations(1000, 40, 2), y = activations(1000, 300, 3);
  CrossSum cross(300, 40, at::kCPU);
  GramSum gram(40, at::kCPU);
  for (const auto& [first, count] : {std::pair{0, 1}, {1, 499}, {500, 500}}) {
    cross.add(y.narrow(0, first, count), x.narrow(0, first, count));
    gram.add(x.narrow(0, first, count));
  }
  const Matrix a = matrix(x), b = matrix(y), want = b.transpose() * a / 1000, square = a.transpose() * a / 1000;
  const Eigen::VectorXd sx = square.diagonal().cwiseSqrt(), sy = (b.colwise().squaredNorm() / 1000).cwiseSqrt();
  EXPECT_LE(relative(matrix(cross.mean()), want, sy, sx), 1e-6);
  EXPECT_LE(relative(matrix(gram.mean()), square, sx, sx), 1e-6);
  EXPECT_EQ(cross.rows(), 1000);
}

TEST(Moments, ChannelsEqualLoops) {
  const at::Tensor x = activations(777, 130, 4);
  const Matrix m = matrix(x);
  const std::vector<std::pair<ChannelSum::Of, Eigen::VectorXd>> cases = {
      {ChannelSum::Of::Value, m.colwise().mean()},
      {ChannelSum::Of::Abs, m.cwiseAbs().colwise().mean()},
      {ChannelSum::Of::Square, m.cwiseAbs2().colwise().mean()},
      {ChannelSum::Of::MaxAbs, m.cwiseAbs().colwise().maxCoeff()}};
  for (const auto& [of, want] : cases) {
    ChannelSum sum(of, 130, at::kCPU);
    sum.add(x.narrow(0, 0, 500));
    sum.add(x.narrow(0, 500, 277));
    EXPECT_LE((matrix(sum.mean()).col(0) - want).cwiseAbs().maxCoeff(), 1e-12 * want.cwiseAbs().maxCoeff()) << static_cast<int>(of);
  }
}

TEST(Moments, CosinesByHand) {
  const auto row = [](std::initializer_list<float> v) {
    at::Tensor t = at::empty({1, 2}, at::kFloat);
    std::copy(v.begin(), v.end(), t.mutable_data_ptr<float>());
    return t;
  };
  CosineSum sum;
  sum.add(row({1, 0}), row({3, 0}));       // 1
  sum.add(row({1, 0}), row({0, 2}));       // 0
  sum.add(row({1, 1}), row({-1, -1}));     // -1
  sum.add(row({3, 4}), row({4, 3}));       // 24 / 25
  sum.add(row({0, 0}), row({0, 0}));       // both absent: equal
  sum.add(row({0, 0}), row({1, 0}));       // 0
  EXPECT_NEAR(sum.mean(), (1 + 0 - 1 + 0.96 + 1 + 0) / 6, 1e-15);
}

TEST(Moments, SameBytesForOneTwoAndThreeThreads) {
  const at::Tensor x = activations(3000, 400, 5), y = activations(3000, 300, 6);
  std::vector<at::Tensor> first;
  for (const int threads : {1, 2, 3}) {
    at::set_num_threads(threads);
    GramSum gram(400, at::kCPU);
    CrossSum cross(300, 400, at::kCPU);
    ChannelSum channels(ChannelSum::Of::Square, 400, at::kCPU);
    gram.add(x), cross.add(y, x), channels.add(x);
    const std::vector<at::Tensor> now = {gram.mean(), cross.mean(), channels.mean()};
    if (first.empty()) first = now;
    for (std::size_t i = 0; i < now.size(); ++i) EXPECT_TRUE(at::equal(now[i], first[i])) << threads << " threads, " << i;
  }
  at::set_num_threads(1);
}

}  // namespace
}  // namespace slmc::engine
