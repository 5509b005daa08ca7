#include "pruning/width/obs.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cholesky_inverse.h>
#include <ATen/ops/cholesky_solve.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <ATen/ops/linalg_solve_triangular.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "engine/pieces.h"
#include "engine/solve.h"

namespace slmc::pruning {
namespace {

constexpr std::int64_t kRows = 256;                // of one product, on one thread

at::Tensor indices(const std::vector<std::int64_t>& v) {
  at::Tensor t = at::empty({static_cast<std::int64_t>(v.size())}, at::kLong);
  std::copy(v.begin(), v.end(), t.mutable_data_ptr<std::int64_t>());
  return t;
}

// a -= b c, rows of `a` in fixed pieces.
void subtract_product(at::Tensor& a, const at::Tensor& b, const at::Tensor& c) {
  engine::for_pieces((a.size(0) + kRows - 1) / kRows, [&](std::int64_t i) {
    const std::int64_t first = i * kRows, rows = std::min(kRows, a.size(0) - first);
    a.narrow(0, first, rows).sub_(at::mm(b.narrow(0, first, rows), c));
  });
}

// Positive definite by construction: blocks of an inverse that engine::factor has damped. The rounding of many removals may still win.
at::Tensor lower_of(const at::Tensor& m, const std::string& what) {
  const auto [lower, info] = at::linalg_cholesky_ex(m);
  if (info.item<int>() == 0) return lower;
  throw Error(ErrorKind::Numeric, "the inverse Gram matrix of " + what + " must stay positive definite while inputs are removed, but does not",
              "use more calibration windows");
}

// tr(w m⁻¹ wᵀ) for w [d, k].
double removal_cost(const at::Tensor& w, const at::Tensor& lower) {
  return at::linalg_solve_triangular(lower, w.t(), false).square().sum().item<double>();
}

class Surgeon {
 public:
  Surgeon(const at::Tensor& w, const at::Tensor& gram, std::int64_t structures, double ridge, std::string what)
      : w_(w.to(at::kCPU, at::kDouble).clone()), width_(w.size(1) / structures), what_(std::move(what)) {
    const engine::Cholesky f = engine::factor(gram, ridge, what_);
    engine::for_pieces(1, [&](std::int64_t) { inverse_ = at::cholesky_inverse(f.lower); });
    alive_.resize(static_cast<std::size_t>(structures));
    std::iota(alive_.begin(), alive_.end(), 0);
  }

  const std::vector<std::int64_t>& alive() const { return alive_; }

  // Of the structures that are alive.
  std::vector<double> scores() const {
    std::vector<double> out(alive_.size());
    if (width_ == 1) {
      const at::Tensor s = w_.square().sum(0) / inverse_.diagonal();
      std::copy_n(s.const_data_ptr<double>(), out.size(), out.begin());
      return out;
    }
    engine::for_pieces(static_cast<std::int64_t>(out.size()), [&](std::int64_t i) {
      const at::Tensor block = inverse_.narrow(0, i * width_, width_).narrow(1, i * width_, width_);
      out[static_cast<std::size_t>(i)] = removal_cost(w_.narrow(1, i * width_, width_), lower_of(block, what_));
    });
    return out;
  }

  // Removes the structures at these places of alive(); the others take over. Returns what it costs.
  double remove(const std::vector<std::size_t>& places) {
    std::vector<bool> gone(alive_.size(), false);
    for (const std::size_t p : places) gone[p] = true;
    std::vector<std::int64_t> out, stay, left;
    for (std::size_t i = 0; i < alive_.size(); ++i) {
      for (std::int64_t c = 0; c < width_; ++c) (gone[i] ? out : stay).push_back(static_cast<std::int64_t>(i) * width_ + c);
      if (!gone[i]) left.push_back(alive_[i]);
    }
    const at::Tensor b = indices(out), r = indices(stay);
    const at::Tensor w_b = w_.index_select(1, b), rows_b = inverse_.index_select(0, b);
    double cost = 0;
    at::Tensor y;                                  // (M_bb)⁻¹ M_b,r [removed, left]
    engine::for_pieces(1, [&](std::int64_t) {
      const at::Tensor lower = lower_of(rows_b.index_select(1, b), what_);
      cost = removal_cost(w_b, lower);
      y = at::cholesky_solve(rows_b.index_select(1, r), lower);
    });
    w_ = w_.index_select(1, r), inverse_ = inverse_.index_select(0, r).index_select(1, r);
    subtract_product(w_, w_b, y);
    subtract_product(inverse_, rows_b.index_select(1, r).t().contiguous(), y);
    alive_ = std::move(left);
    return cost;
  }

 private:
  at::Tensor w_, inverse_;                         // [out, alive columns], [alive columns, alive columns]
  std::vector<std::int64_t> alive_;
  std::int64_t width_;
  std::string what_;
};

// Places of the `count` cheapest structures whose run may still lose one; of equal ones the higher index goes, as keep_best has it.
std::vector<std::size_t> cheapest(const Surgeon& surgeon, std::int64_t count, std::int64_t inside, const std::vector<std::int64_t>& spare) {
  const std::vector<double> s = surgeon.scores();
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < s.size(); ++i) {
    if (spare[static_cast<std::size_t>(surgeon.alive()[i] / inside)] > 0) order.push_back(i);
  }
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return s[a] != s[b] ? s[a] < s[b] : a > b; });
  order.resize(static_cast<std::size_t>(count));
  return order;
}

at::Tensor places_of(const ObsTrace& trace) {
  const auto removed = static_cast<std::int64_t>(trace.removed.size());
  at::Tensor out = at::empty({trace.left.numel()}, at::kDouble);
  auto* place = out.mutable_data_ptr<double>();
  const double* left = trace.left.const_data_ptr<double>();
  std::vector<bool> gone(static_cast<std::size_t>(out.numel()), false);
  for (std::int64_t i = 0; i < removed; ++i) {
    gone[static_cast<std::size_t>(trace.removed[static_cast<std::size_t>(i)])] = true;
    place[trace.removed[static_cast<std::size_t>(i)]] = static_cast<double>(i);
  }
  std::vector<std::int64_t> stay;
  for (std::int64_t i = 0; i < out.numel(); ++i) {
    if (!gone[static_cast<std::size_t>(i)]) stay.push_back(i);
  }
  std::stable_sort(stay.begin(), stay.end(), [&](std::int64_t a, std::int64_t b) { return left[a] < left[b]; });
  for (std::size_t i = 0; i < stay.size(); ++i) place[stay[i]] = static_cast<double>(removed) + static_cast<double>(i);
  return out;
}

}  // namespace

ObsTrace obs_trace(const at::Tensor& w, const at::Tensor& gram, std::int64_t structures, std::int64_t keep, std::int64_t rounds, double ridge,
                   const std::string& what, std::int64_t inside) {
  SLMC_CHECK(structures > 0 && w.size(1) % structures == 0 && structures % inside == 0 && rounds >= 1);
  const std::int64_t run = inside > 1 ? inside : structures;
  SLMC_CHECK(keep >= 0 && keep <= run && (inside == 1 || rounds >= structures));        // runs are kept even one removal at a time
  Surgeon surgeon(w, gram, structures, ridge, what);
  std::vector<std::int64_t> spare(static_cast<std::size_t>(structures / run), run - keep);
  const std::int64_t all = (run - keep) * (structures / run);
  const std::int64_t steps = std::min(rounds, all);
  ObsTrace trace;
  double sum = 0;
  for (std::int64_t step = 0; step < steps; ++step) {
    const std::vector<std::size_t> places = cheapest(surgeon, all * (step + 1) / steps - all * step / steps, run, spare);
    for (const std::size_t p : places) {
      trace.removed.push_back(surgeon.alive()[p]);
      --spare[static_cast<std::size_t>(surgeon.alive()[p] / run)];
    }
    sum += surgeon.remove(places);
    trace.error.resize(trace.removed.size(), sum);
  }
  trace.left = at::empty({structures}, at::kDouble).zero_();
  const std::vector<double> last = surgeon.scores();
  for (std::size_t i = 0; i < last.size(); ++i) trace.left.mutable_data_ptr<double>()[surgeon.alive()[i]] = last[i];
  return trace;
}

at::Tensor obs_of_channels(const FfnPart& part) {
  return places_of(obs_trace(part.down, part.inputs.gram, part.down.size(1), part.keep, kObsRounds, kObsRidge, "ffn.down.in"));
}

at::Tensor obs_of_groups(const KvPart& part) {
  return places_of(obs_trace(part.o, part.inputs.gram, part.groups, part.keep, part.groups, kObsRidge, "attn.o.in"));
}

at::Tensor obs_of_heads(const KvPart& part) {
  const std::int64_t n = part.groups * part.heads;
  return places_of(obs_trace(part.o, part.inputs.gram, n, part.keep, n, kObsRidge, "attn.o.in", part.heads)).view({part.groups, part.heads});
}

}  // namespace slmc::pruning
