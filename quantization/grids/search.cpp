// The scale search of grid.h. Candidates of a group lie side by side, so that one pass over its weights scores all of them with
// vector instructions and without reordering any sum.
#include <array>

#include "core/error.h"
#include "engine/pieces.h"
#include "quantization/grids/grid.h"

#if defined(__x86_64__) && defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
#define SLMC_VECTOR_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))   // same bytes: no FMA, no reordering
#else
#define SLMC_VECTOR_CLONES
#endif

namespace slmc::quantization {
namespace {

constexpr int kLanes = 32;
constexpr std::int64_t kRows = 16;
constexpr float kMagic = 12582912.0f;      // 1.5 * 2^23: adding and subtracting rounds to the nearest integer, ties to even

using Zero = io::QuantScheme::Zero;
using Row = std::array<float, kLanes>;

// Level of code r of lane c: scale[c] * r + min[c], with r in low[c] .. high[c].
struct Lanes {
  Row scale, inverse, min, low, high, error;
};

struct Sums {                              // over a group, weighted: of 1, w, and per lane of r, r^2, w r
  Row r, rr, wr;
  float one = 0, w = 0;
};

SLMC_VECTOR_CLONES
void score(const float* w, const float* h, std::int64_t n, Lanes& lanes) {
  Row error{};
  for (std::int64_t j = 0; j < n; ++j) {
    const float value = w[j], weight = h[j];
    for (int c = 0; c < kLanes; ++c) {
      float r = ((value - lanes.min[c]) * lanes.inverse[c] + kMagic) - kMagic;
      r = r < lanes.low[c] ? lanes.low[c] : r;
      r = r > lanes.high[c] ? lanes.high[c] : r;
      const float d = value - (lanes.scale[c] * r + lanes.min[c]);
      error[c] += weight * d * d;
    }
  }
  lanes.error = error;
}

SLMC_VECTOR_CLONES
void sum(const float* w, const float* h, std::int64_t n, const Lanes& lanes, Sums& s) {
  Row sr{}, srr{}, swr{};
  for (std::int64_t j = 0; j < n; ++j) {
    const float value = w[j], weight = h[j];
    for (int c = 0; c < kLanes; ++c) {
      float r = ((value - lanes.min[c]) * lanes.inverse[c] + kMagic) - kMagic;
      r = r < lanes.low[c] ? lanes.low[c] : r;
      r = r > lanes.high[c] ? lanes.high[c] : r;
      const float hr = weight * r;
      sr[c] += hr;
      srr[c] += hr * r;
      swr[c] += hr * value;
    }
  }
  s.r = sr, s.rr = srr, s.wr = swr;
  s.one = s.w = 0;
  for (std::int64_t j = 0; j < n; ++j) s.one += h[j], s.w += h[j] * w[j];
}

void set(Lanes& lanes, int c, const io::QuantScheme& scheme, float scale, float min) {
  lanes.scale[c] = as_written(scale, scheme.scale_dtype);
  lanes.inverse[c] = lanes.scale[c] == 0 ? 0.0f : 1.0f / lanes.scale[c];
  lanes.min[c] = as_written(min, scheme.scale_dtype);
}

// How far a range is shrunk at most: fewer levels pay for a finer step with more clipping.
float smallest_share(int bits) {
  constexpr std::array<float, 7> share = {0.25f, 0.35f, 0.5f, 0.65f, 0.75f, 0.85f, 0.9f};   // 2 .. 8 bits
  return share[static_cast<std::size_t>(bits - 2)];
}

struct Range {
  float low, high;
};

// Ranges [low, high] of the group, shrunk around their middle, as scale and minimum. ZeroPoint lanes come in pairs: the zero
// rounded down and up.
void start(Lanes& lanes, const io::QuantScheme& scheme, Range range, bool signed_scales) {
  const float most = static_cast<float>((1 << scheme.bits) - 1), middle = static_cast<float>(1 << (scheme.bits - 1));
  const float amax = std::max(-range.low, range.high);
  const int variants = scheme.zero == Zero::Min || (scheme.zero == Zero::Symmetric && !signed_scales) ? 1 : 2;
  const int steps = kLanes / variants;
  const float widest = scheme.zero == Zero::Symmetric ? middle / (middle - 1) : 1.0f, least = smallest_share(scheme.bits);
  for (int c = 0; c < kLanes; ++c) {
    const int step = c / variants, variant = c % variants;
    const float share = widest + (least - widest) * static_cast<float>(step) / static_cast<float>(steps - 1);
    if (scheme.zero == Zero::Symmetric) {
      set(lanes, c, scheme, (variant ? -1.0f : 1.0f) * share * amax / middle, 0);
      lanes.low[c] = -middle, lanes.high[c] = middle - 1;
    } else if (scheme.zero == Zero::Min) {
      const float width = range.high - range.low, cut = (1 - share) * width / 2;
      set(lanes, c, scheme, share * width / most, range.low + cut);
      lanes.low[c] = 0, lanes.high[c] = most;
    } else {
      const float low = std::min(range.low, 0.0f) * share, high = std::max(range.high, 0.0f) * share;
      set(lanes, c, scheme, (high - low) / most, 0);
      const float zero = std::clamp(std::floor(-low * lanes.inverse[c]) + static_cast<float>(variant), 0.0f, most);
      lanes.low[c] = -zero, lanes.high[c] = most - zero;
    }
  }
}

// Each lane's scale (and minimum) by weighted least squares on its own codes.
void improve(const float* w, const float* h, std::int64_t n, const io::QuantScheme& scheme, Lanes& lanes) {
  Sums s;
  sum(w, h, n, lanes, s);
  for (int c = 0; c < kLanes; ++c) {
    if (scheme.zero != Zero::Min) {
      if (s.rr[c] > 0) set(lanes, c, scheme, s.wr[c] / s.rr[c], 0);
      continue;
    }
    const float determinant = s.one * s.rr[c] - s.r[c] * s.r[c];
    if (determinant <= 0) continue;
    set(lanes, c, scheme, (s.one * s.wr[c] - s.w * s.r[c]) / determinant, (s.rr[c] * s.w - s.r[c] * s.wr[c]) / determinant);
  }
}

void search_group(const float* w, const float* h, Grid& grid, std::int64_t g, const SearchSettings& settings) {
  const std::int64_t n = grid.scheme.group;
  const auto [low, high] = std::minmax_element(w, w + n);
  Lanes lanes;
  start(lanes, grid.scheme, {*low, *high}, settings.signed_scales);
  Lanes better = lanes;
  improve(w, h, n, grid.scheme, better);
  score(w, h, n, lanes);
  score(w, h, n, better);
  const Lanes* best = &lanes;
  int at = 0;
  for (const Lanes* set : {&lanes, &better}) {
    for (int c = 0; c < kLanes; ++c) {
      if (set->error[c] < best->error[at]) best = set, at = c;
    }
  }
  grid.scales[g] = best->scale[at];
  if (grid.scheme.zero == Zero::Min) grid.mins[g] = best->min[at];
  if (grid.scheme.zero == Zero::ZeroPoint) grid.mins[g] = -best->low[at];
}

}  // namespace

Grid search_grid(const at::Tensor& weight, const at::Tensor& importance, const io::QuantScheme& scheme, const SearchSettings& settings) {
  const at::Tensor w = weight.to(at::kFloat).contiguous(), h = importance.to(at::kFloat).clone().contiguous();
  Grid grid{.scheme = scheme, .rows = w.size(0), .columns = w.size(1), .scales = {}, .mins = {}};
  SLMC_CHECK(grid.columns % scheme.group == 0 && h.numel() == grid.columns);
  const auto count = static_cast<std::size_t>(grid.rows * grid.groups());
  grid.scales.resize(count);
  if (scheme.zero != Zero::Symmetric) grid.mins.resize(count);
  float* weights = h.mutable_data_ptr<float>();
  for (std::int64_t g = 0; g < grid.groups(); ++g) {
    float* part = weights + g * scheme.group;
    if (std::all_of(part, part + scheme.group, [](float x) { return x == 0; })) std::fill(part, part + scheme.group, 1.0f);
  }
  const float* values = w.const_data_ptr<float>();
  engine::for_pieces((grid.rows + kRows - 1) / kRows, [&](std::int64_t piece) {
    const std::int64_t last = std::min((piece + 1) * kRows, grid.rows) * grid.groups();
    for (std::int64_t g = piece * kRows * grid.groups(); g < last; ++g) {
      search_group(values + g * scheme.group, weights + (g % grid.groups()) * scheme.group, grid, g, settings);
    }
  });
  return grid;
}

}  // namespace slmc::quantization
