#include "engine/moments.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <vector>

#include "core/error.h"
#include "engine/pieces.h"

namespace slmc::engine {
namespace {

constexpr std::int64_t kRun = 2048;        // rows of one fp32 product: its rounding error grows with them, folding costs 1/kRun
constexpr std::int64_t kTile = 256;        // columns; tiles of one matrix are nearly equal

struct Span {
  std::int64_t first, count;
};

std::vector<Span> spans(std::int64_t n, std::int64_t most) {
  const std::int64_t parts = std::max<std::int64_t>(1, (n + most - 1) / most);
  std::vector<Span> out;
  for (std::int64_t i = 0; i < parts; ++i) out.push_back({i * n / parts, (i + 1) * n / parts - i * n / parts});
  return out;
}

at::Tensor columns(const at::Tensor& x, Span s) { return x.narrow(1, s.first, s.count); }

// sum += y_tileᵀ x_tile over all rows, for each (row span, column span) of tiles.
void add_tiles(at::Tensor& sum, const at::Tensor& y, const at::Tensor& x, const std::vector<std::pair<Span, Span>>& tiles) {
  const auto one = [&](std::int64_t i) {
    const auto& [rows, cols] = tiles[static_cast<std::size_t>(i)];
    at::Tensor into = sum.narrow(0, rows.first, rows.count).narrow(1, cols.first, cols.count);
    for (std::int64_t first = 0; first < x.size(0); first += kRun) {
      const std::int64_t count = std::min(kRun, x.size(0) - first);
      into.add_(at::mm(columns(y, rows).narrow(0, first, count).t(), columns(x, cols).narrow(0, first, count)));
    }
  };
  const auto count = static_cast<std::int64_t>(tiles.size());
  if (x.is_cpu()) return for_pieces(count, one);
  for (std::int64_t i = 0; i < count; ++i) one(i);
}

at::Tensor zeros(at::IntArrayRef shape, at::Device device) { return at::zeros(shape, at::TensorOptions().dtype(at::kDouble).device(device)); }

at::Tensor divided(const at::Tensor& sum, std::int64_t rows) {
  const at::Tensor t = sum.to(at::kCPU);
  return rows ? t.div(static_cast<double>(rows)) : t.clone();
}

}  // namespace

CrossSum::CrossSum(std::int64_t m, std::int64_t n, at::Device device) : sum_(zeros({m, n}, device)) {}

void CrossSum::add(const at::Tensor& y, const at::Tensor& x) {
  SLMC_CHECK(y.size(0) == x.size(0) && y.size(1) == sum_.size(0) && x.size(1) == sum_.size(1));
  const at::NoGradGuard no_grad;
  std::vector<std::pair<Span, Span>> tiles;
  for (const Span rows : spans(sum_.size(0), kTile)) {
    for (const Span cols : spans(sum_.size(1), kTile)) tiles.emplace_back(rows, cols);
  }
  add_tiles(sum_, y, x, tiles);
  rows_ += x.size(0);
}

at::Tensor CrossSum::mean() const { return divided(sum_, rows_); }

GramSum::GramSum(std::int64_t n, at::Device device) : sum_(zeros({n, n}, device)) {}

void GramSum::add(const at::Tensor& x) {
  SLMC_CHECK(x.size(1) == sum_.size(1));
  const at::NoGradGuard no_grad;
  const std::vector<Span> parts = spans(x.size(1), kTile);
  std::vector<std::pair<Span, Span>> tiles;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    for (std::size_t j = i; j < parts.size(); ++j) tiles.emplace_back(parts[i], parts[j]);
  }
  add_tiles(sum_, x, x, tiles);
  rows_ += x.size(0);
}

at::Tensor GramSum::mean() const {
  const at::Tensor upper = divided(sum_, rows_).triu();
  return upper + upper.triu(1).t();
}

ChannelSum::ChannelSum(Of of, std::int64_t n, at::Device device) : of_(of), sum_(zeros({n}, device)) {}

void ChannelSum::add(const at::Tensor& x) {
  const at::NoGradGuard no_grad;
  const auto parts = spans(x.size(1), 64);
  const auto one = [&](std::int64_t i) {
    const Span s = parts[static_cast<std::size_t>(i)];
    at::Tensor into = sum_.narrow(0, s.first, s.count);
    const at::Tensor part = columns(x, s);
    if (of_ == Of::MaxAbs) return static_cast<void>(into.copy_(into.maximum(part.abs().amax(0).to(at::kDouble))));
    const at::Tensor values = part.to(at::kDouble);
    into.add_((of_ == Of::Value ? values : of_ == Of::Abs ? values.abs() : values.square()).sum(0));
  };
  const auto count = static_cast<std::int64_t>(parts.size());
  if (x.is_cpu()) {
    for_pieces(count, one);
  } else {
    for (std::int64_t i = 0; i < count; ++i) one(i);
  }
  rows_ += x.size(0);
}

at::Tensor ChannelSum::mean() const { return of_ == Of::MaxAbs ? sum_.to(at::kCPU).clone() : divided(sum_, rows_); }

void CosineSum::add(const at::Tensor& x, const at::Tensor& y) {
  const at::NoGradGuard no_grad;
  const auto runs = spans(x.size(0), 256);
  std::vector<double> part(runs.size());
  const auto one = [&](std::int64_t i) {
    const Span s = runs[static_cast<std::size_t>(i)];
    const at::Tensor a = x.narrow(0, s.first, s.count).to(at::kDouble), b = y.narrow(0, s.first, s.count).to(at::kDouble);
    const at::Tensor dot = (a * b).sum(1), aa = a.square().sum(1), bb = b.square().sum(1), norm = (aa * bb).sqrt();
    const at::Tensor both_zero = ((aa == 0) * (bb == 0)).to(at::kDouble);
    part[static_cast<std::size_t>(i)] = at::where(norm == 0, both_zero, dot / norm).sum().item<double>();      // NaN stays NaN
  };
  const auto count = static_cast<std::int64_t>(runs.size());
  if (x.is_cpu()) {
    for_pieces(count, one);
  } else {
    for (std::int64_t i = 0; i < count; ++i) one(i);
  }
  for (const double p : part) sum_ += p;
  rows_ += x.size(0);
}

at::Tensor reciprocal_lengths(const at::Tensor& x) {
  const at::Tensor length = x.norm(2, {1}, true);
  return at::where(length > 0, length.reciprocal(), at::zeros_like(length));
}

}  // namespace slmc::engine
