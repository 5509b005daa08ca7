#include "pruning/depth/stream_change.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <numbers>
#include <numeric>

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

std::vector<double> means(const ByWindow& values) {
  std::vector<double> out;
  for (const std::vector<double>& v : values) out.push_back(std::accumulate(v.begin(), v.end(), 0.0) / static_cast<double>(v.size()));
  return out;
}

ByWindow run_block(const engine::Arch& arch, engine::Weights& weights, std::int64_t block, const std::vector<Unit>& units, at::Tensor& x) {
  const bool whole = std::all_of(units.begin(), units.end(), [](const Unit& u) { return u.part == Part::Block; });
  const at::Tensor before = x.clone();
  at::Tensor middle = x;                            // behind attention, when somebody asks for parts
  if (!whole) {
    middle = x.clone();
    engine::run_windows(without(arch, Unit{block, Part::FeedForward}), weights, middle, block, block + 1);
  }
  engine::run_windows(arch, weights, x, block, block + 1);
  ByWindow out(units.size());
  for (std::size_t u = 0; u < units.size(); ++u) {
    const at::Tensor &from = units[u].part == Part::FeedForward ? middle : before, &to = units[u].part == Part::Attention ? middle : x;
    for (std::int64_t w = 0; w < x.size(0); ++w) out[u].push_back(influence_of(from.narrow(0, w, 1), to.narrow(0, w, 1), units[u]));
  }
  return out;
}

ByWindow influences(const engine::Arch& arch, engine::Weights& weights, const at::Tensor& windows, const std::vector<Unit>& units) {
  ByWindow out(units.size());
  for_groups(arch, weights, windows, [&](at::Tensor x) {
    std::size_t at = 0;
    for (std::int64_t i = 0; i < blocks_of(arch); ++i) {
      cancel_point("nothing was written");
      std::vector<Unit> own;
      for (std::size_t u = at; u < units.size() && units[u].block == i; ++u) own.push_back(units[u]);
      for (const std::vector<double>& values : run_block(arch, weights, i, own, x)) {
        out[at].insert(out[at].end(), values.begin(), values.end());
        ++at;
      }
    }
  });
  return out;
}

ByWindow angular_distances(const engine::Arch& arch, engine::Weights& weights, const at::Tensor& windows, std::int64_t n, bool last_token) {
  ByWindow out(static_cast<std::size_t>(blocks_of(arch) - n + 1));
  for_groups(arch, weights, windows, [&](at::Tensor x) {
    const auto seen = [&] { return (last_token ? x.narrow(1, x.size(1) - 1, 1) : x).clone(); };      // [windows, positions, hidden]
    std::deque<at::Tensor> inputs = {seen()};       // of the last n + 1 blocks
    for (std::int64_t i = 0; i < blocks_of(arch); ++i) {
      cancel_point("nothing was written");
      engine::run_windows(arch, weights, x, i, i + 1);
      inputs.push_back(seen());
      if (static_cast<std::int64_t>(inputs.size()) > n + 1) inputs.pop_front();
      if (const std::int64_t first = i + 1 - n; first >= 0) {
        for (std::int64_t w = 0; w < x.size(0); ++w) {
          out[static_cast<std::size_t>(first)].push_back(angles(inputs.front()[w], inputs.back()[w]) / static_cast<double>(inputs.back().size(1)));
          require_finite(out[static_cast<std::size_t>(first)].back(), to_string(Unit{first}));
        }
      }
    }
  });
  return out;
}

}  // namespace slmc::pruning
