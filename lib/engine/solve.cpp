#include "engine/solve.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <ATen/ops/linalg_solve_triangular.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/units.h"
#include "engine/pieces.h"

namespace slmc::engine {
namespace {

constexpr std::int64_t kRows = 64;             // right-hand sides solved together, on one thread
constexpr std::int64_t kColumns = 256;         // of a symmetric matrix, whose other half is not multiplied
constexpr double kFirstRidge = 1e-8;           // where the escalation starts when no ridge was asked for

at::Tensor fp64(const at::Tensor& t) { return t.to(at::kCPU, at::kDouble).contiguous(); }

at::Tensor indices(const std::vector<std::int64_t>& v) {
  at::Tensor t = at::empty({static_cast<std::int64_t>(v.size())}, at::kLong);
  std::copy(v.begin(), v.end(), t.mutable_data_ptr<std::int64_t>());
  return t;
}

// Row by row on fixed blocks: body(first row, rows).
void for_rows(std::int64_t rows, const std::function<void(std::int64_t, std::int64_t)>& body) {
  for_pieces((rows + kRows - 1) / kRows, [&](std::int64_t i) { body(i * kRows, std::min(kRows, rows - i * kRows)); });
}

// Mean of the diagonal over the inputs that are not dead; dead ones (diagonal exactly zero) get a one in `a`.
double revive_dead(at::Tensor& a) {
  double* p = a.mutable_data_ptr<double>();
  const std::int64_t n = a.size(0);
  double sum = 0;
  std::int64_t alive = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    if (p[i * n + i] != 0) {
      sum += p[i * n + i];
      ++alive;
    }
  }
  const double mean = alive ? sum / static_cast<double>(alive) : 1.0;
  for (std::int64_t i = 0; i < n; ++i) {
    if (p[i * n + i] == 0) p[i * n + i] = mean;
  }
  return mean;
}

// Of a symmetric `a`, column by column: LAPACK's own order, so that neither this nor a solve copies it into another.
bool cholesky(const at::Tensor& a, at::Tensor& lower) {
  int info = 1;
  for_pieces(1, [&](std::int64_t) {
    const auto [l, status] = at::linalg_cholesky_ex(a.t());
    lower = l;
    info = status.item<int>();
  });
  return info == 0 && std::isfinite(lower.diagonal().sum().item<double>());
}

}  // namespace

Cholesky factor(const at::Tensor& gram, double ridge, const std::string& what, double most) {
  SLMC_CHECK(gram.dim() == 2 && gram.size(0) == gram.size(1));
  at::Tensor a = fp64(gram).clone();
  if (!std::isfinite(a.sum().item<double>())) {
    throw Error(ErrorKind::Numeric, "the Gram matrix of " + what + " must be finite, but holds NaN or infinity",
                "the model's activations overflow on these calibration windows");
  }
  const double mean = a.size(0) ? revive_dead(a) : 1.0;
  const at::Tensor diagonal = a.diagonal().clone();
  Cholesky f;
  for (double share = ridge; share <= std::max(most, ridge) * (1 + 1e-9); share = std::max(10 * share, kFirstRidge)) {
    a.diagonal().copy_(diagonal + share * mean);
    if (cholesky(a, f.lower)) {
      f.ridge = share;
      f.escalated = share != ridge;
      return f;
    }
  }
  throw Error(ErrorKind::Numeric, "the Gram matrix of " + what + " must be positive definite, but is not even with a ridge of " +
              format_number(most) + " of its mean diagonal", "use more or other calibration windows");
}

at::Tensor solve_right(const Cholesky& f, const at::Tensor& right) {
  at::Tensor out = fp64(right).clone();
  for_rows(out.size(0), [&](std::int64_t first, std::int64_t rows) {
    at::Tensor block = out.narrow(0, first, rows);
    at::linalg_solve_triangular_out(block, f.lower.t(), block, true, false);
    at::linalg_solve_triangular_out(block, f.lower, block, false, false);
  });
  return out;
}

at::Tensor centred_fit(const at::Tensor& w0, const at::Tensor& r, const Cholesky& f) { return fp64(w0) + solve_right(f, r); }

at::Tensor refit_kept(const at::Tensor& weight, const at::Tensor& gram, const std::vector<std::int64_t>& kept, double ridge,
                      const std::string& what) {
  const at::Tensor w = fp64(weight), a = fp64(gram);
  const std::int64_t n = w.size(1);
  SLMC_CHECK(a.size(0) == n && a.size(1) == n);
  std::vector<bool> keep(static_cast<std::size_t>(n), false);
  for (const std::int64_t k : kept) {
    SLMC_CHECK(k >= 0 && k < n && !keep[k]);
    keep[k] = true;
  }
  std::vector<std::int64_t> removed;
  for (std::int64_t i = 0; i < n; ++i) {
    if (!keep[i]) removed.push_back(i);
  }
  const at::Tensor k = indices(kept), p = indices(removed);
  const at::Tensor w_k = w.index_select(1, k);
  if (removed.empty() || kept.empty()) return w_k;
  const at::Tensor a_k = a.index_select(1, k);                                   // [n, |K|]
  const at::Tensor r = product(w.index_select(1, p), a_k.index_select(0, p));    // W_P A_PK
  return centred_fit(w_k, r, factor(a_k.index_select(0, k), ridge, what));
}

at::Tensor product(const at::Tensor& left, const at::Tensor& right) {
  const at::Tensor a = fp64(left), b = fp64(right);
  at::Tensor out = at::empty({a.size(0), b.size(1)}, at::kDouble);
  for_rows(a.size(0), [&](std::int64_t first, std::int64_t rows) {
    out.narrow(0, first, rows).copy_(at::mm(a.narrow(0, first, rows), b));
  });
  return out;
}

double trace_of_product(const at::Tensor& x, const at::Tensor& y) {
  const at::Tensor a = fp64(x), b = fp64(y);
  SLMC_CHECK(a.sizes() == b.sizes());
  const double *p = a.const_data_ptr<double>(), *q = b.const_data_ptr<double>();
  return std::inner_product(p, p + a.numel(), q, 0.0);
}

double output_error(const at::Tensor& delta, const at::Tensor& gram) {
  const at::Tensor d = fp64(delta), a = fp64(gram);
  const std::int64_t blocks = (d.size(0) + kRows - 1) / kRows, n = a.size(0);
  std::vector<double> part(static_cast<std::size_t>(blocks), 0.0);
  for_rows(d.size(0), [&](std::int64_t first, std::int64_t rows) {
    const at::Tensor block = d.narrow(0, first, rows);
    for (std::int64_t at = 0; at < n; at += kColumns) {      // what is left of the diagonal block counts for both sides
      const std::int64_t columns = std::min(kColumns, n - at);
      const at::Tensor own = block.narrow(1, at, columns), of = a.narrow(1, at, columns);
      const at::Tensor left = at::mm(block.narrow(1, 0, at), of.narrow(0, 0, at)), here = at::mm(own, of.narrow(0, at, columns));
      part[first / kRows] += ((left * 2 + here) * own).sum().item<double>();
    }
  });
  return std::accumulate(part.begin(), part.end(), 0.0);
}

double removal_error(const at::Tensor& weight, const at::Tensor& gram, const std::vector<std::int64_t>& kept, const at::Tensor& w_kept) {
  const at::Tensor w = fp64(weight);
  const double whole = output_error(w, gram);
  if (whole == 0) return 0;
  const at::Tensor delta = w.clone().index_add_(1, indices(kept), fp64(w_kept), -1);
  return output_error(delta, gram) / whole;
}

}  // namespace slmc::engine
