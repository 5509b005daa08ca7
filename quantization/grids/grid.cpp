#include "quantization/grids/grid.h"

#include <string>

#include "core/error.h"
#include "engine/pieces.h"

namespace slmc::quantization {
namespace {

constexpr std::int64_t kRows = 16;                     // rows of one piece of work
constexpr float kEpsilon = 1.1920929e-07f;             // of fp32: what compressed-tensors puts for a scale of zero

Grid empty_grid(const at::Tensor& w, const io::QuantScheme& scheme) {
  Grid grid{.scheme = scheme, .rows = w.size(0), .columns = w.size(1)};
  SLMC_CHECK(grid.columns % scheme.group == 0);
  const auto count = static_cast<std::size_t>(grid.rows * grid.groups());
  grid.scales.resize(count);
  if (scheme.zero != io::QuantScheme::Zero::Symmetric) grid.mins.resize(count);
  return grid;
}

}  // namespace

float as_written(float value, DType type) {
  switch (type) {
    case DType::F16: return f16_to_f32(f32_to_f16(value));
    case DType::BF16: return bf16_to_f32(f32_to_bf16(value));
    default: return value;
  }
}

std::int64_t largest_group(const std::vector<std::int64_t>& widths) {
  for (const std::int64_t group : {128, 64, 32, 16}) {
    if (std::all_of(widths.begin(), widths.end(), [&](std::int64_t width) { return width % group == 0; })) return group;
  }
  return 8;
}

void require_group(const io::QuantScheme& scheme, std::int64_t columns, const std::string& what) {
  if (scheme.group > 0 && columns % scheme.group == 0) return;
  std::int64_t below = std::min(scheme.group, columns), above = scheme.group + 1;
  while (below > 1 && columns % below != 0) --below;
  while (above <= columns && columns % above != 0) ++above;
  std::string nearest = below > 1 ? std::to_string(below) : "";
  if (above <= columns) nearest += (nearest.empty() ? "" : " and ") + std::to_string(above);
  throw Error(ErrorKind::Recipe,
              "the group size must divide the " + std::to_string(columns) + " columns of " + what + ", but is " + std::to_string(scheme.group),
              nearest.empty() ? "this width has no divisor" : "the nearest that do: " + nearest);
}

Grid range_grid(const at::Tensor& weight, const io::QuantScheme& scheme) {
  const at::Tensor w = weight.to(at::kFloat).contiguous();
  Grid grid = empty_grid(w, scheme);
  const auto most = static_cast<float>((1 << scheme.bits) - 1), middle = static_cast<float>(1 << (scheme.bits - 1));
  const float* values = w.const_data_ptr<float>();
  for (std::int64_t g = 0; g < static_cast<std::int64_t>(grid.scales.size()); ++g) {
    const auto [low, high] = std::minmax_element(values + g * scheme.group, values + (g + 1) * scheme.group);
    const float min = std::min(*low, 0.0f), max = std::max(*high, 0.0f);
    const bool symmetric = scheme.zero == io::QuantScheme::Zero::Symmetric;
    const float scale = as_written(symmetric ? std::max(-min, max) / (most / 2) : (max - min) / most, scheme.scale_dtype);
    grid.scales[g] = scale == 0 ? kEpsilon : scale;
    if (symmetric) continue;
    SLMC_CHECK(scheme.zero == io::QuantScheme::Zero::ZeroPoint);
    grid.mins[g] = std::clamp(std::nearbyint(-middle - min / grid.scales[g]), -middle, most - middle) + middle;
  }
  return grid;
}

io::Quantized round_to(const Grid& grid, const at::Tensor& weight) {
  const at::Tensor w = weight.to(at::kFloat).contiguous();
  io::Quantized q{.scheme = grid.scheme, .codes = {}, .scales = grid.scales, .mins = grid.mins};
  q.codes.resize(static_cast<std::size_t>(w.numel()));
  const float* values = w.const_data_ptr<float>();
  engine::for_pieces((grid.rows + kRows - 1) / kRows, [&](std::int64_t piece) {
    const std::int64_t last = std::min((piece + 1) * kRows, grid.rows) * grid.groups();
    for (std::int64_t g = piece * kRows * grid.groups(); g < last; ++g) {
      for (std::int64_t i = g * grid.scheme.group; i < (g + 1) * grid.scheme.group; ++i) {
        q.codes[i] = static_cast<std::uint8_t>(grid.nearest(g, values[i]));
      }
    }
  });
  return q;
}

}  // namespace slmc::quantization
