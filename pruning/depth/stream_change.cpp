#include "pruning/depth/stream_change.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <numbers>

#include "core/cancel.h"
#include "core/error.h"
#include "engine/moments.h"
#include "engine/stream.h"

namespace slmc::pruning {
namespace {

constexpr std::int64_t kGroup = 8;                 // windows whose streams are in memory together

void require_finite(double value, const std::string& where) {
  if (std::isfinite(value)) return;
  throw Error(ErrorKind::Numeric, "the activations around " + where + " must be finite, but are not", "`slmc verify` looks at the weights");
}

std::int64_t blocks_of(const engine::Arch& arch) { return static_cast<std::int64_t>(arch.sizes.blocks.size()); }

// body(streams at the start of a group of windows)
template <typename Body>
void for_groups(const engine::Arch& arch, engine::Weights& weights, const at::Tensor& windows, const Body& body) {
  for (std::int64_t first = 0; first < windows.size(0); first += kGroup) {
    const std::int64_t count = std::min(kGroup, windows.size(0) - first);
    body(engine::embed_windows(arch, weights, windows.narrow(0, first, count), weights.tensor("norm").device()));
  }
}

// sum over rows of arccos(cos) / pi, row by row in order; x, y [rows, hidden].
double angles(const at::Tensor& x, const at::Tensor& y) {
  const at::Tensor a = x.to(at::kCPU, at::kFloat).contiguous(), b = y.to(at::kCPU, at::kFloat).contiguous();
  const float *pa = a.const_data_ptr<float>(), *pb = b.const_data_ptr<float>();
  double sum = 0;
  for (std::int64_t row = 0; row < a.size(0); ++row) {
    double ab = 0, aa = 0, bb = 0;
    for (std::int64_t i = 0; i < a.size(1); ++i, ++pa, ++pb) {
      const double u = *pa, v = *pb;
      ab += u * v, aa += u * u, bb += v * v;
    }
    const double size = std::sqrt(aa) * std::sqrt(bb), cosine = size == 0 ? 1.0 : ab / size;       // NaN stays NaN
    sum += std::acos(cosine > 1 ? 1.0 : cosine < -1 ? -1.0 : cosine) / std::numbers::pi;
  }
  return sum;
}

}  // namespace

double influence_of(const at::Tensor& x, const at::Tensor& y, const Unit& unit) {
  engine::CosineSum cosines;
  cosines.add(x.flatten(0, 1), y.flatten(0, 1));
  const double influence = 1 - cosines.mean();
  require_finite(influence, to_string(unit));
  return influence;
}

std::vector<double> run_block(const engine::Arch& arch, engine::Weights& weights, std::int64_t block, const std::vector<Unit>& units, at::Tensor& x) {
  const bool whole = std::all_of(units.begin(), units.end(), [](const Unit& u) { return u.part == Part::Block; });
  const at::Tensor before = x.clone();
  at::Tensor middle = x;                            // behind attention, when somebody asks for parts
  if (!whole) {
    middle = x.clone();
    engine::run_windows(without(arch, Unit{block, Part::FeedForward}), weights, middle, block, block + 1);
  }
  engine::run_windows(arch, weights, x, block, block + 1);
  std::vector<double> out;
  for (const Unit& unit : units) {
    const at::Tensor& from = unit.part == Part::FeedForward ? middle : before;
    out.push_back(influence_of(from, unit.part == Part::Attention ? middle : x, unit));
  }
  return out;
}

std::vector<double> influences(const engine::Arch& arch, engine::Weights& weights, const at::Tensor& windows, const std::vector<Unit>& units) {
  std::vector<double> sums(units.size());
  for_groups(arch, weights, windows, [&](at::Tensor x) {
    std::size_t at = 0;
    for (std::int64_t i = 0; i < blocks_of(arch); ++i) {
      cancel_point("nothing was written");
      std::vector<Unit> own;
      for (std::size_t u = at; u < units.size() && units[u].block == i; ++u) own.push_back(units[u]);
      for (const double value : run_block(arch, weights, i, own, x)) sums[at++] += value * static_cast<double>(x.size(0));
    }
  });
  for (double& sum : sums) sum /= static_cast<double>(windows.size(0));
  return sums;
}

std::vector<double> angular_distances(const engine::Arch& arch, engine::Weights& weights, const at::Tensor& windows, std::int64_t n, bool last_token) {
  std::vector<double> sums(static_cast<std::size_t>(blocks_of(arch) - n + 1));
  std::int64_t rows = 0;
  for_groups(arch, weights, windows, [&](at::Tensor x) {
    const auto seen = [&] { return (last_token ? x.select(1, x.size(1) - 1) : x.flatten(0, 1)).clone(); };
    std::deque<at::Tensor> inputs = {seen()};       // of the last n + 1 blocks
    rows += inputs.back().size(0);
    for (std::int64_t i = 0; i < blocks_of(arch); ++i) {
      cancel_point("nothing was written");
      engine::run_windows(arch, weights, x, i, i + 1);
      inputs.push_back(seen());
      if (static_cast<std::int64_t>(inputs.size()) > n + 1) inputs.pop_front();
      const std::int64_t first = i + 1 - n;
      if (first >= 0) sums[static_cast<std::size_t>(first)] += angles(inputs.front(), inputs.back());
    }
  });
  for (std::size_t l = 0; l < sums.size(); ++l) {
    sums[l] /= static_cast<double>(rows);
    require_finite(sums[l], to_string(Unit{static_cast<std::int64_t>(l)}));
  }
  return sums;
}

}  // namespace slmc::pruning
