#include "quantization/solvers/gptq.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/flip.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "engine/pieces.h"
#include "engine/solve.h"

namespace slmc::quantization {
namespace {

constexpr std::int64_t kRows = 64;         // rows of one piece of work, on one thread
constexpr std::int64_t kColumns = 64;      // columns between two matrix products

at::Tensor index_tensor(const std::vector<std::int64_t>& v) {
  at::Tensor t = at::empty({static_cast<std::int64_t>(v.size())}, at::kLong);
  std::copy(v.begin(), v.end(), t.mutable_data_ptr<std::int64_t>());
  return t;
}

// By falling energy; equals keep their order.
std::vector<std::int64_t> column_order(const at::Tensor& gram, bool by_energy) {
  std::vector<std::int64_t> columns(static_cast<std::size_t>(gram.size(0)));
  std::iota(columns.begin(), columns.end(), 0);
  const at::Tensor energy = gram.diagonal().contiguous();
  const double* e = energy.const_data_ptr<double>();
  if (by_energy) std::stable_sort(columns.begin(), columns.end(), [&](std::int64_t a, std::int64_t b) { return e[a] > e[b]; });
  return columns;
}

// Rows first .. first + rows - 1 of w, in the factor's order of columns, on their way to codes.
class Rows {
 public:
  Rows(const at::Tensor& w, const GptqFactor& factor, const Grid& grid, std::int64_t first, std::int64_t rows)
      : factor_(factor), grid_(grid), first_(first), rows_(rows), n_(w.size(1)),
        w_(w.narrow(0, first, rows).to(at::kDouble).index_select(1, index_tensor(factor.columns))),
        error_(at::empty({rows, n_}, at::kDouble)) {}

  // Writes the codes of these rows; returns their part of the loss.
  double run(std::uint8_t* codes) {
    double loss = 0;
    for (std::int64_t begin = 0; begin < n_; begin += kColumns) {
      const std::int64_t count = std::min(kColumns, n_ - begin);
      at::Tensor t = w_.narrow(1, begin, count).clone(at::MemoryFormat::Contiguous);
      if (begin > 0) t.addmm_(error_.narrow(1, 0, begin), factor_.m.narrow(0, 0, begin).narrow(1, begin, count));
      loss += block(t.mutable_data_ptr<double>(), begin, count, codes);
    }
    return loss;
  }

 private:
  // The recurrence inside columns begin .. begin + count - 1; t [rows, count] holds w and the feedback of all columns before.
  double block(double* t, std::int64_t begin, std::int64_t count, std::uint8_t* codes) {
    const double* m = factor_.m.const_data_ptr<double>();
    const double* d = factor_.d.const_data_ptr<double>();
    const double* w = w_.const_data_ptr<double>();
    double* error = error_.mutable_data_ptr<double>();
    double loss = 0;
    for (std::int64_t i = 0; i < rows_; ++i) {
      double* row = t + i * count;
      for (std::int64_t j = 0; j < count; ++j) {
        const std::int64_t at = begin + j, column = factor_.columns[at];
        const std::int64_t group = (first_ + i) * grid_.groups() + column / grid_.scheme.group;
        const int code = grid_.nearest(group, row[j]);
        const auto level = static_cast<double>(grid_.level(group, code));
        codes[(first_ + i) * n_ + column] = static_cast<std::uint8_t>(code);
        loss += d[at] * (row[j] - level) * (row[j] - level);
        const double e = w[i * n_ + at] - level;
        error[i * n_ + at] = e;
        const double* next = m + at * n_ + begin;
        for (std::int64_t k = j + 1; k < count; ++k) row[k] += e * next[k];
      }
    }
    return loss;
  }

  const GptqFactor& factor_;
  const Grid& grid_;
  std::int64_t first_, rows_, n_;
  at::Tensor w_, error_;                   // [rows, n] fp64
};

}  // namespace

GptqFactor gptq_factor(const at::Tensor& gram, const GptqSettings& settings, const std::string& what) {
  const at::Tensor h = gram.to(at::kDouble).contiguous();
  const std::int64_t n = h.size(0);
  GptqFactor f;
  f.columns = column_order(h, settings.order);
  // The upper factor R of H = R Rᵀ is the lower one of H in reversed order, reversed back.
  std::vector<std::int64_t> reversed(f.columns.rbegin(), f.columns.rend());
  const at::Tensor order = index_tensor(reversed);
  const engine::Cholesky c = engine::factor(h.index_select(0, order).index_select(1, order), settings.damping, what);
  const at::Tensor r = c.lower.flip({0, 1});
  const at::Tensor diagonal = r.diagonal().clone();
  f.m = r.div(diagonal.unsqueeze(0)).contiguous();
  f.d = diagonal.square();
  const double* gram_data = h.const_data_ptr<double>();
  double* d = f.d.mutable_data_ptr<double>();
  for (std::int64_t j = 0; j < n; ++j) {
    if (gram_data[f.columns[j] * (n + 1)] != 0) continue;
    d[j] = 0;                                        // what is lost at a dead input does not count
    ++f.dead;
  }
  f.damping = c.ridge;
  f.escalated = c.escalated;
  return f;
}

GptqResult gptq(const at::Tensor& weight, const GptqFactor& factor, const Grid& grid) {
  SLMC_CHECK(weight.size(0) == grid.rows && weight.size(1) == grid.columns && factor.m.size(0) == grid.columns);
  const at::Tensor w = weight.contiguous();
  GptqResult result;
  result.codes = {.scheme = grid.scheme, .codes = {}, .scales = grid.scales, .mins = grid.mins};
  result.codes.codes.resize(static_cast<std::size_t>(w.numel()));
  const std::int64_t pieces = (grid.rows + kRows - 1) / kRows;
  std::vector<double> loss(static_cast<std::size_t>(pieces), 0.0);
  engine::for_pieces(pieces, [&](std::int64_t i) {
    loss[i] = Rows(w, factor, grid, i * kRows, std::min(kRows, grid.rows - i * kRows)).run(result.codes.codes.data());
  });
  result.loss = std::accumulate(loss.begin(), loss.end(), 0.0);
  return result;
}

}  // namespace slmc::quantization
