// Oracle: the definition, not the algorithm. Columns are fixed one after the other; before each, the free ones are re-solved by
// least squares against everything fixed so far (Eigen, fp64). Cubic per column on purpose; shares no line with gptq.cpp.
#include "quantization/solvers/gptq.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <gtest/gtest.h>

#include <Eigen/Dense>
#include <numeric>

#include "core/error.h"
#include "core/rng.h"
#include "engine/solve.h"

namespace slmc::quantization {
namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Zero = io::QuantScheme::Zero;

struct Case {
  std::int64_t rows, columns;
  io::QuantScheme scheme;
  bool order;
  int dead = 0;                      // inputs that are always zero
  std::int64_t samples = 0;          // 0: four times the columns
  std::string text() const {
    return std::to_string(rows) + "x" + std::to_string(columns) + " bits " + std::to_string(scheme.bits) + " group " +
           std::to_string(scheme.group) + " zero " + std::to_string(static_cast<int>(scheme.zero)) + (order ? " ordered" : "") + " dead " +
           std::to_string(dead) + " samples " + std::to_string(samples);
  }
};

at::Tensor tensor(const Matrix& m, at::ScalarType type = at::kDouble) {
  at::Tensor t = at::empty({m.rows(), m.cols()}, at::kDouble);
  std::copy(m.data(), m.data() + m.size(), t.mutable_data_ptr<double>());
  return t.to(type);
}

Matrix random(std::int64_t rows, std::int64_t cols, std::uint64_t seed) {
  const Rng rng(seed);
  Matrix m(rows, cols);
  for (std::int64_t i = 0; i < m.size(); ++i) m.data()[i] = rng.normal(i);
  return m;
}

// Weights in fp32 (as double), and the Gram matrix of correlated inputs of very different size.
struct Layer {
  Matrix w, gram;
  Layer(const Case& c, std::uint64_t seed) {
    const std::int64_t n = c.columns, samples = c.samples ? c.samples : 4 * n;
    w = random(c.rows, n, seed).cast<float>().cast<double>();
    Matrix x = random(samples, n, seed + 1) * random(n, n, seed + 2) / std::sqrt(static_cast<double>(n)) + 0.5 * random(samples, n, seed + 3);
    for (std::int64_t j = 0; j < n; ++j) x.col(j) *= std::exp(0.8 * std::sin(static_cast<double>(5 * j)));
    for (int k = 0; k < c.dead; ++k) x.col((7 * k + 3) % n).setZero();
    gram = x.transpose() * x / static_cast<double>(samples);
  }
  at::Tensor importance() const { return tensor(gram).diagonal().clone(); }
};

struct Codes {
  std::vector<int> codes;
  double loss = 0;
};

// Levels as the containers' readers compute them, in fp32.
double level(const Grid& g, std::int64_t i, int code) {
  const float c = static_cast<float>(code);
  if (g.scheme.zero == Zero::Min) return g.scales[i] * c + g.mins[i];
  return g.scales[i] * (c - (g.scheme.zero == Zero::ZeroPoint ? g.mins[i] : static_cast<float>(1 << (g.scheme.bits - 1))));
}

int nearest_by_trying_all(const Grid& g, std::int64_t i, double t) {
  int best = 0;
  for (int c = 1; c < 1 << g.scheme.bits; ++c) {
    if (std::abs(level(g, i, c) - t) < std::abs(level(g, i, best) - t)) best = c;
  }
  return best;
}

Codes oracle(const Layer& layer, const Grid& grid, const Case& c, double damping) {
  const std::int64_t n = c.columns;
  std::vector<std::int64_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  if (c.order) {
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return layer.gram(a, a) > layer.gram(b, b); });
  }
  double sum = 0, alive = 0;
  for (std::int64_t j = 0; j < n; ++j) sum += layer.gram(j, j), alive += layer.gram(j, j) != 0;
  Matrix h = layer.gram;
  for (std::int64_t j = 0; j < n; ++j) h(j, j) += damping * sum / alive + (layer.gram(j, j) == 0 ? 1.0 : 0.0);
  Matrix hp(n, n), now(c.rows, n), fixed(c.rows, n);
  for (std::int64_t a = 0; a < n; ++a) {
    for (std::int64_t b = 0; b < n; ++b) hp(a, b) = h(order[a], order[b]);
    now.col(a) = layer.w.col(order[a]);
  }
  const Matrix original = now;
  Codes out;
  out.codes.resize(static_cast<std::size_t>(c.rows * n));
  for (std::int64_t j = 0; j < n; ++j) {
    const std::int64_t free = n - j;
    if (j > 0) {                     // free columns that minimise the error left by the fixed ones
      const Matrix pull = (original - fixed).leftCols(j) * hp.topRightCorner(j, free);
      now.rightCols(free) = original.rightCols(free) + hp.bottomRightCorner(free, free).ldlt().solve(pull.transpose()).transpose();
    }
    for (std::int64_t i = 0; i < c.rows; ++i) {
      const std::int64_t group = i * (n / c.scheme.group) + order[j] / c.scheme.group;
      const int code = nearest_by_trying_all(grid, group, now(i, j));
      out.codes[static_cast<std::size_t>(i * n + order[j])] = code;
      fixed(i, j) = level(grid, group, code);
    }
  }
  const Matrix delta = original - fixed;
  for (std::int64_t a = 0; a < n; ++a) {
    if (layer.gram(order[a], order[a]) == 0) hp.row(a).setZero(), hp.col(a).setZero();
  }
  out.loss = (delta * hp * delta.transpose()).trace();
  return out;
}

double output_error(const Layer& layer, const io::Quantized& q) {
  const std::int64_t rows = layer.w.rows(), n = layer.w.cols();
  const io::TensorData data = io::TensorData::of({rows, n}, q);
  const std::vector<float> values = data.to_floats();
  Matrix delta = layer.w;
  for (std::int64_t i = 0; i < rows * n; ++i) delta.data()[i] -= values[static_cast<std::size_t>(i)];
  return (delta * layer.gram * delta.transpose()).trace();
}

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {3, 1, {.bits = 4, .group = 1}, false},
      {5, 31, {.bits = 4, .group = 31}, false},
      {65, 32, {.bits = 4, .group = 32}, true},                               // one row past a piece
      {7, 96, {.bits = 4, .group = 32}, false},                               // three groups, one column block and a half
      {7, 96, {.bits = 4, .group = 32}, true},
      {9, 128, {.bits = 5, .group = 32, .zero = Zero::Min}, true},
      {9, 130, {.bits = 3, .group = 65, .zero = Zero::ZeroPoint, .scale_dtype = DType::F32}, true},
      {4, 160, {.bits = 8, .group = 32}, true},
      {6, 96, {.bits = 4, .group = 32}, true, 5},
      {6, 96, {.bits = 4, .group = 32}, true, 0, 20},                         // rank 20 of 96
      {40, 256, {.bits = 4, .group = 32}, true, 3},                           // eight groups, four column blocks
  };
  return all;
}

TEST(Gptq, EqualsColumnwiseLeastSquares) {
  ASSERT_EQ(cases().size(), 11u);
  std::int64_t equal = 0, all = 0;
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.text());
    const Layer layer(c, 11);
    const at::Tensor w = tensor(layer.w, at::kFloat);
    const Grid grid = search_grid(w, layer.importance(), c.scheme);
    const GptqFactor factor = gptq_factor(tensor(layer.gram), {.damping = 0.01, .order = c.order}, "w");
    EXPECT_EQ(factor.dead, c.dead);
    const GptqResult got = gptq(w, factor, grid);
    const Codes want = oracle(layer, grid, c, 0.01);
    std::int64_t same = 0;
    for (std::size_t i = 0; i < want.codes.size(); ++i) same += want.codes[i] == got.codes.codes[i];
    EXPECT_GE(static_cast<double>(same), 0.999 * static_cast<double>(want.codes.size()));
    EXPECT_NEAR(got.loss, want.loss, 1e-6 * want.loss);
    equal += same, all += static_cast<std::int64_t>(want.codes.size());
  }
  EXPECT_GT(all, 15000);                                  // so that 99.99 % allows one code, not none by accident
  EXPECT_GE(static_cast<double>(equal), 0.9999 * static_cast<double>(all));
}

TEST(Gptq, TwoColumnsByHand) {
  // Grid of whole numbers -8 .. 7. Inputs are equal, so the second column takes all of the first one's error:
  // 0.4 -> 0, error 0.4; 0.3 + 0.4 = 0.7 -> 1. Plain rounding would give 0 and 0.
  Grid grid{.scheme = {.bits = 4, .group = 2}, .rows = 1, .columns = 2, .scales = {1.0f}, .mins = {}};
  const at::Tensor w = tensor((Matrix(1, 2) << 0.4, 0.3).finished(), at::kFloat);
  const at::Tensor gram = tensor((Matrix(2, 2) << 1, 1, 1, 1).finished());
  const GptqResult r = gptq(w, gptq_factor(gram, {.damping = 1e-9, .order = false}, "w"), grid);
  EXPECT_EQ(r.codes.codes, (std::vector<std::uint8_t>{8, 9}));
}

TEST(Gptq, UncorrelatedInputsAreSimplyRounded) {
  const Case c{.rows = 10, .columns = 64, .scheme = {.bits = 4, .group = 32}, .order = true};
  const Layer layer(c, 3);
  const at::Tensor w = tensor(layer.w, at::kFloat), diagonal = tensor(Matrix(layer.gram.diagonal().asDiagonal()));
  const Grid grid = search_grid(w, layer.importance(), c.scheme);
  EXPECT_EQ(gptq(w, gptq_factor(diagonal, {}, "w"), grid).codes, round_to(grid, w));
}

TEST(Gptq, WeightsOnTheGridStay) {
  const Case c{.rows = 10, .columns = 64, .scheme = {.bits = 4, .group = 32}, .order = true};
  const Layer layer(c, 3);
  const Grid grid = search_grid(tensor(layer.w, at::kFloat), layer.importance(), c.scheme);
  const io::Quantized on_grid = round_to(grid, tensor(layer.w, at::kFloat));
  const std::vector<float> values = io::TensorData::of({10, 64}, on_grid).to_floats();
  at::Tensor w = at::empty({10, 64}, at::kFloat);
  std::copy(values.begin(), values.end(), w.mutable_data_ptr<float>());
  const GptqResult r = gptq(w, gptq_factor(tensor(layer.gram), {}, "w"), grid);
  EXPECT_EQ(r.codes, on_grid);
  EXPECT_EQ(r.loss, 0);
}

TEST(Gptq, BeatsRoundingOnEverySeed) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const Case c{.rows = 24, .columns = 96, .scheme = {.bits = 4, .group = 32}, .order = seed % 2 == 0};
    const Layer layer(c, 1000 + 10 * seed);
    const at::Tensor w = tensor(layer.w, at::kFloat);
    const Grid grid = search_grid(w, layer.importance(), c.scheme);
    const io::Quantized solved = gptq(w, gptq_factor(tensor(layer.gram), {.order = c.order}, "w"), grid).codes;
    EXPECT_LT(output_error(layer, solved), 0.8 * output_error(layer, round_to(grid, w))) << "seed " << seed;
  }
}

TEST(Gptq, SameBytesForOneTwoAndThreeThreads) {
  const Case c{.rows = 300, .columns = 320, .scheme = {.bits = 4, .group = 32}, .order = true};
  const Layer layer(c, 5);
  const at::Tensor w = tensor(layer.w, at::kFloat);
  std::optional<io::Quantized> first;
  double loss = 0;
  for (const int threads : {1, 2, 3}) {
    at::set_num_threads(threads);
    const Grid grid = search_grid(w, layer.importance(), c.scheme);
    const GptqResult r = gptq(w, gptq_factor(tensor(layer.gram), {}, "w"), grid);
    if (!first) first = r.codes, loss = r.loss;
    EXPECT_TRUE(r.codes == *first) << threads << " threads";
    EXPECT_EQ(r.loss, loss);
  }
  at::set_num_threads(1);
}

TEST(Gptq, RankDeficientGramNeedsMoreDampingAndSaysSo) {
  const Case c{.rows = 2, .columns = 96, .scheme = {.bits = 4, .group = 32}, .order = true, .samples = 20};
  const GptqFactor f = gptq_factor(tensor(Layer(c, 7).gram), {.damping = 0}, "w");
  EXPECT_TRUE(f.escalated);
  EXPECT_GT(f.damping, 0);
}

TEST(Gptq, NanIsRefusedByName) {
  Matrix gram = Matrix::Identity(4, 4);
  gram(1, 2) = std::nan("");
  try {
    gptq_factor(tensor(gram), {}, "block.7.attn.o");
    FAIL() << "accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::Numeric);
    EXPECT_NE(e.message().find("block.7.attn.o"), std::string::npos);
  }
}

}  // namespace
}  // namespace slmc::quantization
