#include "pruning/width/refit.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <array>

#include "engine/solve.h"
#include "pruning/stored.h"

namespace slmc::pruning {
namespace {

constexpr std::array<double, 5> kRidges = {1e-4, 1e-3, 1e-2, 1e-1, 1};
constexpr int kFirst = 2;     // tried first: the best one of most maps, or one beside it

at::Tensor index_tensor(const std::vector<std::int64_t>& v) {
  at::Tensor t = at::empty({static_cast<std::int64_t>(v.size())}, at::kLong);
  std::copy(v.begin(), v.end(), t.mutable_data_ptr<std::int64_t>());
  return t;
}

// The intercept that goes with a change of weights.
at::Tensor intercept(const Missing& m, const at::Tensor& delta) {
  return m.mean_r.defined() ? m.mean_r - at::mv(delta, m.mean_x) : at::Tensor();
}

// As stored, with what rounding did to it.
struct Step {
  Affine now;
  at::Tensor delta, c;        // fp64
};

Step step(const Affine& from, const at::Tensor& delta, const at::Tensor& c, const ir::TensorSpec& spec, const ir::TensorSpec* bias_spec) {
  const at::Tensor w0 = from.weight.to(at::kCPU, at::kDouble);
  Step out{.now = {.weight = as_stored((w0 + delta).to(at::kFloat), spec)}};
  out.delta = out.now.weight.to(at::kDouble) - w0;
  if (!c.defined()) return out;
  const at::Tensor b0 = from.bias.to(at::kCPU, at::kDouble);
  out.now.bias = as_stored((b0 + c).to(at::kFloat), *bias_spec);
  out.c = out.now.bias.to(at::kDouble) - b0;
  return out;
}

struct Tried {
  Affine now;
  double error = 0;           // held out
};

RefittedMap as_it_was(const Missing& held_out, const ir::TensorSpec& spec) {
  const double cut = held_out.target == 0 ? 0 : held_out.size / held_out.target;
  return {.name = spec.name, .cut = cut, .refitted = cut};
}

}  // namespace

at::Tensor columns_of(const at::Tensor& w, const std::vector<std::int64_t>& kept) { return w.index_select(1, index_tensor(kept)); }

Missing missing_of_cut(const at::Tensor& weight, const at::Tensor& gram, const at::Tensor& means, const std::vector<std::int64_t>& kept) {
  const at::Tensor w = weight.to(at::kCPU, at::kDouble), k = index_tensor(kept), p = index_tensor(others(kept, w.size(1)));
  const at::Tensor w_p = w.index_select(1, p), of_p = gram.index_select(0, p);
  Missing out{.a = gram.index_select(0, k).index_select(1, k), .r = engine::product(w_p, of_p.index_select(1, k))};
  if (means.defined()) out.mean_x = means.index_select(0, k), out.mean_r = at::mv(w_p, means.index_select(0, p));
  return out;
}

Missing held_out_of_cut(const at::Tensor& weight, const at::Tensor& gram, const at::Tensor& means, const std::vector<std::int64_t>& kept) {
  const at::Tensor w = weight.to(at::kCPU, at::kDouble), p = index_tensor(others(kept, w.size(1)));
  Missing out = missing_of_cut(w, gram, means, kept);
  out.size = engine::output_error(w.index_select(1, p), gram.index_select(0, p).index_select(1, p));
  out.target = engine::output_error(w, gram);
  return out;
}

double error_of(const Missing& m, const at::Tensor& delta, const at::Tensor& c) {
  if (m.target == 0) return 0;
  double error = m.size - 2 * engine::trace_of_product(delta, m.r) + engine::output_error(delta, m.a);
  if (c.defined()) error += engine::trace_of_product(c, c - intercept(m, delta) * 2);
  return error / m.target;
}

Refitted refit(const Affine& from, const Missing& fit, const Missing& held_out, const ir::TensorSpec& spec, const ir::TensorSpec* bias_spec) {
  Refitted out{.map = as_it_was(held_out, spec)};
  at::Tensor a = fit.a, r = fit.r;
  if (fit.mean_r.defined()) a = a - at::outer(fit.mean_x, fit.mean_x), r = r - at::outer(fit.mean_r, fit.mean_x);
  const auto tried = [&](int i) {
    const at::Tensor delta = engine::solve_right(engine::factor(a, kRidges[i], spec.name + ".in"), r);
    const Step now = step(from, delta, intercept(fit, delta), spec, bias_spec);
    return Tried{now.now, error_of(held_out, now.delta, now.c)};
  };
  int best = kFirst;
  Tried at_best = tried(best);
  for (const int way : {1, -1}) {                    // errors fall towards the best ridge and rise behind it
    const int start = best;
    while (best + way >= 0 && best + way < static_cast<int>(kRidges.size())) {
      Tried next = tried(best + way);
      if (next.error >= at_best.error) break;
      best += way, at_best = std::move(next);
    }
    if (best != start) break;
  }
  if (at_best.error < out.map.refitted) out.now = at_best.now, out.map.refitted = at_best.error, out.map.ridge = kRidges[best];
  return out;
}

Refitted refit_bias(const Affine& from, const Missing& fit, const Missing& held_out, const ir::TensorSpec& spec, const ir::TensorSpec& bias_spec) {
  Refitted out{.map = as_it_was(held_out, spec)};
  const Step now = step(from, at::zeros_like(fit.r), fit.mean_r, spec, &bias_spec);
  const double error = error_of(held_out, now.delta, now.c);
  if (error < out.map.refitted) out.now.bias = now.now.bias, out.map.refitted = error;
  return out;
}

}  // namespace slmc::pruning
