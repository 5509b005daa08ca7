// Grids: levels by hand, nearest codes and searched scales against trying everything.
#include "quantization/grids/grid.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/rng.h"

namespace slmc::quantization {
namespace {

using Zero = io::QuantScheme::Zero;

at::Tensor floats(std::int64_t rows, std::int64_t columns, const std::vector<float>& v) {
  at::Tensor t = at::empty({rows, columns}, at::kFloat);
  std::copy(v.begin(), v.end(), t.mutable_data_ptr<float>());
  return t;
}

// Heavy-tailed weights, some groups shifted.
at::Tensor weights(std::int64_t rows, std::int64_t columns, std::uint64_t seed) {
  const Rng rng(seed);
  std::vector<float> v(static_cast<std::size_t>(rows * columns));
  for (std::size_t i = 0; i < v.size(); ++i) {
    const double x = rng.normal(i);
    v[i] = static_cast<float>(0.05 * x * (1 + x * x / 6) + (i / 64 % 3 == 0 ? 0.03 : 0.0));
  }
  return floats(rows, columns, v);
}

at::Tensor importance(std::int64_t columns, std::uint64_t seed) {
  const Rng rng(seed);
  at::Tensor h = at::empty({columns}, at::kFloat);
  for (std::int64_t i = 0; i < columns; ++i) h[i] = std::exp(rng.normal(i));
  return h;
}

// sum h (w - level)^2 of one group, codes by trying all of them.
double group_error(const Grid& grid, std::int64_t g, const float* w, const float* h) {
  double sum = 0;
  for (std::int64_t j = 0; j < grid.scheme.group; ++j) {
    double best = 1e300;
    for (int c = 0; c < 1 << grid.scheme.bits; ++c) best = std::min(best, std::pow(w[j] - static_cast<double>(grid.level(g, c)), 2));
    sum += h[j] * best;
  }
  return sum;
}

double error_of(const Grid& grid, const at::Tensor& w, const at::Tensor& h) {
  double sum = 0;
  for (std::int64_t g = 0; g < static_cast<std::int64_t>(grid.scales.size()); ++g) {
    sum += group_error(grid, g, w.const_data_ptr<float>() + g * grid.scheme.group,
                       h.const_data_ptr<float>() + g % grid.groups() * grid.scheme.group);
  }
  return sum;
}

const std::vector<io::QuantScheme>& schemes() {
  static const std::vector<io::QuantScheme> all = {
      {.bits = 4, .group = 32}, {.bits = 5, .group = 32}, {.bits = 8, .group = 32},
      {.bits = 3, .group = 64, .scale_dtype = DType::F32}, {.bits = 4, .group = 32, .zero = Zero::Min},
      {.bits = 5, .group = 32, .zero = Zero::Min}, {.bits = 4, .group = 64, .zero = Zero::ZeroPoint, .scale_dtype = DType::BF16}};
  return all;
}

TEST(Grid, RangesByHand) {
  // compressed-tensors: symmetric scale = 1.5 / 7.5; codes round(w / 0.2) + 8.
  const at::Tensor w = floats(1, 4, {-1.5f, 0.25f, 0.0f, 1.4f});
  const Grid symmetric = range_grid(w, {.bits = 4, .group = 4, .scale_dtype = DType::F32});
  EXPECT_FLOAT_EQ(symmetric.scales[0], 0.2f);
  EXPECT_EQ(round_to(symmetric, w).codes, (std::vector<std::uint8_t>{0, 9, 8, 15}));   // -7.5 ties to -8, 1.25 to 1
  // Zero point: scale = (1.4 + 1.5) / 15 = 0.19333, zero = round(-8 + 7.759) + 8 = 8.
  const Grid zero = range_grid(w, {.bits = 4, .group = 4, .zero = Zero::ZeroPoint, .scale_dtype = DType::F32});
  EXPECT_FLOAT_EQ(zero.scales[0], 2.9f / 15);
  EXPECT_EQ(zero.mins[0], 8.0f);
}

TEST(Grid, NearestIsTheNearestLevel) {
  for (const io::QuantScheme& scheme : schemes()) {
    const at::Tensor w = weights(4, 128, 1);
    const Grid grid = search_grid(w, importance(128, 2), scheme);
    const Rng rng(3);
    for (std::int64_t i = 0; i < 2000; ++i) {
      const std::int64_t g = i % static_cast<std::int64_t>(grid.scales.size());
      const double t = 0.3 * rng.normal(i);
      double best = 1e300;
      for (int c = 0; c < 1 << scheme.bits; ++c) best = std::min(best, std::abs(t - static_cast<double>(grid.level(g, c))));
      EXPECT_LE(std::abs(t - static_cast<double>(grid.level(g, grid.nearest(g, t)))), best + 1e-7);
    }
  }
}

TEST(Grid, SearchIsNearlyAsGoodAsEveryScale) {
  const at::Tensor w = weights(6, 128, 5), h = importance(128, 6);
  for (const bool signed_scales : {true, false}) {
    const io::QuantScheme scheme{.bits = 4, .group = 32};
    const Grid grid = search_grid(w, h, scheme, {.signed_scales = signed_scales});
    double best_sum = 0;
    for (std::int64_t g = 0; g < 24; ++g) {
      const float* values = w.const_data_ptr<float>() + g * 32;
      double best = 1e300;
      for (int i = 1; i <= 3000; ++i) {
        for (const float sign : {1.0f, -1.0f}) {
          if (sign < 0 && !signed_scales) continue;
          const Grid one{.scheme = scheme, .rows = 1, .columns = 32, .scales = {as_written(sign * 0.1f * static_cast<float>(i) / 3000, DType::F16)}, .mins = {}};
          best = std::min(best, group_error(one, 0, values, h.const_data_ptr<float>() + g % 4 * 32));
        }
      }
      best_sum += best;
    }
    EXPECT_LE(error_of(grid, w, h), 1.02 * best_sum);
    EXPECT_TRUE(signed_scales || std::all_of(grid.scales.begin(), grid.scales.end(), [](float s) { return s >= 0; }));
  }
}

TEST(Grid, SearchBeatsTheRange) {
  for (const io::QuantScheme& scheme : schemes()) {
    if (scheme.zero == Zero::Min) continue;
    const at::Tensor w = weights(8, 128, 7), h = importance(128, 8);
    EXPECT_LT(error_of(search_grid(w, h, scheme), w, h), 0.95 * error_of(range_grid(w, scheme), w, h)) << scheme.bits;
  }
}

TEST(Grid, MinBeatsSymmetricOnShiftedWeights) {
  const at::Tensor w = weights(8, 128, 7).add(0.2), h = importance(128, 8);
  EXPECT_LT(error_of(search_grid(w, h, {.bits = 4, .group = 32, .zero = Zero::Min}), w, h),
            0.3 * error_of(search_grid(w, h, {.bits = 4, .group = 32}), w, h));
}

TEST(Grid, WeightsOnAGridAreFoundExactly) {
  const at::Tensor h = importance(128, 8);
  for (const io::QuantScheme& scheme : schemes()) {
    Grid grid{.scheme = scheme, .rows = 4, .columns = 128, .scales = {}, .mins = {}};
    const Rng rng(9);
    const int most = (1 << scheme.bits) - 1;
    std::vector<float> w;
    for (std::int64_t g = 0; g < 4 * grid.groups(); ++g) {
      grid.scales.push_back(as_written(static_cast<float>(0.01 + 0.01 * rng.uniform(g)), scheme.scale_dtype));
      if (scheme.zero == Zero::Min) grid.mins.push_back(as_written(static_cast<float>(-0.1 * rng.uniform(100 + g)), scheme.scale_dtype));
      if (scheme.zero == Zero::ZeroPoint) grid.mins.push_back(static_cast<float>(rng.below(static_cast<std::uint64_t>(most), 200 + g)));
      for (std::int64_t j = 0; j < scheme.group; ++j) {      // both ends of the range are used, as a reader's file would
        const int code = j == 0 ? 0 : j == 1 ? most : static_cast<int>(rng.below(static_cast<std::uint64_t>(most + 1), 1000 * g + j));
        w.push_back(grid.level(g, code));
      }
    }
    const at::Tensor on_grid = floats(4, 128, w);
    const Grid found = search_grid(on_grid, h, scheme);
    // Exact but for the last bits of a scale that fp32 least squares found; scales in F16 and BF16 are rounded to the true one.
    EXPECT_LE(error_of(found, on_grid, h), scheme.scale_dtype == DType::F32 ? 1e-12 : 0) << scheme.bits << " " << static_cast<int>(scheme.zero);
  }
}

TEST(Grid, GroupsOfZerosAndGroupsWithoutImportance) {
  for (const io::QuantScheme& scheme : schemes()) {
    const at::Tensor zeros = at::zeros({2, 128}, at::kFloat);
    for (const float x : io::TensorData::of({2, 128}, round_to(search_grid(zeros, importance(128, 1), scheme), zeros)).to_floats()) EXPECT_EQ(x, 0);
    const at::Tensor w = weights(2, 128, 4);
    const Grid grid = search_grid(w, at::zeros({128}, at::kFloat), scheme), plain = search_grid(w, at::ones({128}, at::kFloat), scheme);
    EXPECT_EQ(grid.scales, plain.scales);
  }
}

TEST(Grid, GroupSizesMustDivideTheWidth) {
  EXPECT_EQ(largest_group({576, 1536}), 64);
  EXPECT_EQ(largest_group({1024, 1536}), 128);
  EXPECT_EQ(largest_group({30, 64}), 8);
  EXPECT_NO_THROW(require_group({.bits = 4, .group = 64}, 576, "w"));
  try {
    require_group({.bits = 4, .group = 128}, 576, "block.0.attn.q");
    FAIL() << "accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::Recipe);
    EXPECT_EQ(e.message(), "the group size must divide the 576 columns of block.0.attn.q, but is 128");
    EXPECT_EQ(e.diagnostics()[0].hint, "the nearest that do: 96 and 144");
  }
}

}  // namespace
}  // namespace slmc::quantization
