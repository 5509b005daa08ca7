#include "engine/train/head_loss.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "core/error.h"

namespace slmc::engine {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Which rows of the hidden states count: all when `rows` is undefined.
struct Counted {
  at::Tensor rows;      // [n] int64
  at::Tensor target;    // [n] int64
  std::int64_t n = 0;
};

Counted counted_rows(const at::Tensor& target, std::int64_t vocab) {
  const at::Tensor flat = target.reshape({-1});
  if (flat.numel() == 0) return {{}, flat, 0};
  if (const std::int64_t most = flat.max().item<std::int64_t>(); most >= vocab) {
    throw Error(ErrorKind::Data, fmt::format("a target token must be below the vocabulary's {} rows, but is {}", vocab, most),
                "the data must be tokenized with the model's own tokenizer");
  }
  const at::Tensor rows = flat.ge(0).nonzero().squeeze(1);
  if (rows.size(0) == flat.size(0)) return {{}, flat, flat.size(0)};
  return {rows, flat.index_select(0, rows), rows.size(0)};
}

// Products with so many rows of a long inner dimension run from the cache: 230 GFLOP/s against 215 with 512 rows (one core of a Zen 5).
constexpr std::int64_t kGradientRows = 128;

// The loop over chunks, with its buffers.
class Chunks {
 public:
  Chunks(const HeadLossInput& in, const RowLoss& loss)
      : in_(in), loss_(loss), head_(in.head.detach()), hidden_(in.hidden.detach().reshape({-1, in.head.size(1)})),
        counted_(counted_rows(in.target, head_.size(0))) {
    SLMC_CHECK(in.target.numel() == hidden_.size(0) && head_.scalar_type() == hidden_.scalar_type());
    if (counted_.rows.defined()) hidden_ = hidden_.index_select(0, counted_.rows);
  }

  std::int64_t rows() const { return counted_.n; }

  // Sums of the terms, [terms] fp64.
  std::vector<double> run(bool want_hidden, bool want_head) {
    const at::Tensor sums = at::zeros({static_cast<std::int64_t>(loss_.terms().size())}, hidden_.options().dtype(at::kDouble));
    const std::int64_t vocab = head_.size(0), chunk = std::min(in_.chunk > 0 ? in_.chunk : chunk_rows(vocab), counted_.n);
    if (want_hidden) d_hidden_ = at::empty_like(hidden_);
    logits_ = at::empty({chunk, vocab}, hidden_.options());
    if (in_.teacher) teacher_ = at::empty({chunk, in_.teacher->vocab}, hidden_.options());
    for (std::int64_t first = 0; first < counted_.n; first += chunk) {
      one(first, std::min(chunk, counted_.n - first), want_head, sums);
    }
    if (want_head && !d_head_.defined()) d_head_ = at::zeros(head_.sizes(), head_.options());
    const at::Tensor host = sums.cpu();
    return {host.data_ptr<double>(), host.data_ptr<double>() + host.numel()};
  }

  // Gradient of the hidden states in their original shape; undefined unless asked for.
  at::Tensor d_hidden() const {
    if (!d_hidden_.defined()) return {};
    if (!counted_.rows.defined()) return d_hidden_.view(in_.hidden.sizes());
    at::Tensor all = at::zeros({in_.target.numel(), hidden_.size(1)}, hidden_.options());
    return all.index_copy_(0, counted_.rows, d_hidden_).view(in_.hidden.sizes());
  }
  at::Tensor d_head() const { return d_head_; }

 private:
  void one(std::int64_t first, std::int64_t rows, bool want_head, const at::Tensor& sums) {
    const at::Tensor hidden = hidden_.narrow(0, first, rows), target = counted_.target.narrow(0, first, rows);
    at::Tensor z = logits_.narrow(0, 0, rows), t;
    at::mm_out(z, hidden, head_.t());
    if (in_.teacher) {
      t = teacher_.narrow(0, 0, rows);
      in_.teacher->fill(counted_.rows.defined() ? counted_.rows.narrow(0, first, rows) : range(first, rows), t);
    }
    const at::Tensor gradient = apply(z, t, target, sums);
    for (std::int64_t at = 0; d_hidden_.defined() && at < rows; at += kGradientRows) {
      const std::int64_t n = std::min(kGradientRows, rows - at);
      at::Tensor out = d_hidden_.narrow(0, first + at, n);
      at::mm_out(out, gradient.narrow(0, at, n), head_);
    }
    if (!want_head) return;
    if (d_head_.defined()) {
      d_head_.addmm_(gradient.t(), hidden);
    } else {
      d_head_ = gradient.t().mm(hidden);
    }
  }

  // Half-precision logits get fp32 losses; their gradient goes back into the logits' type.
  at::Tensor apply(at::Tensor z, at::Tensor t, const at::Tensor& target, const at::Tensor& sums) const {
    if (z.scalar_type() == at::kFloat || z.scalar_type() == at::kDouble) {
      loss_.apply(z, t, target, in_.scale, sums);
      return z;
    }
    at::Tensor wide = z.to(at::kFloat);
    loss_.apply(wide, t.defined() ? t.to(at::kFloat) : t, target, in_.scale, sums);
    return z.copy_(wide);
  }

  at::Tensor range(std::int64_t first, std::int64_t rows) const {
    if (!all_.defined()) all_ = at::full({counted_.n}, 1, counted_.target.options()).cumsum(0).sub_(1);
    return all_.narrow(0, first, rows);
  }

  const HeadLossInput& in_;
  const RowLoss& loss_;
  at::Tensor head_, hidden_;
  Counted counted_;
  at::Tensor logits_, teacher_, d_hidden_, d_head_;
  mutable at::Tensor all_;
};

// times(x, 1) is x itself: the trainer's upstream gradient is always 1.
at::Tensor times(const at::Tensor& x, double factor) { return factor == 1.0 || !x.defined() ? x : x.mul_(factor); }

struct Fused : torch::autograd::Function<Fused> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& hidden, const at::Tensor& head, Chunks* chunks,
                            std::vector<double>* sums, double scale) {
    *sums = chunks->run(hidden.requires_grad(), head.requires_grad());
    ctx->saved_data["hidden"] = chunks->d_hidden();
    ctx->saved_data["head"] = chunks->d_head();
    return at::full({}, sums->front() * scale, hidden.options().dtype(at::kDouble));
  }

  static variable_list backward(AutogradContext* ctx, variable_list upstream) {
    if (at::GradMode::is_enabled()) {
      throw Error(ErrorKind::Unsupported, "the fused head loss must be differentiated once, but a second derivative was asked for");
    }
    const double factor = upstream[0].item<double>();
    auto take = [&](const char* name) {                    // the buffers are handed over: backward runs once
      const at::Tensor gradient = ctx->saved_data[name].toTensor();
      ctx->saved_data[name] = at::Tensor();
      return times(gradient, factor);
    };
    return {take("hidden"), take("head"), {}, {}, {}};
  }
};

void require_finite(const std::vector<double>& sums, const std::vector<std::string>& terms) {
  for (std::size_t i = 0; i < sums.size(); ++i) {
    if (std::isfinite(sums[i])) continue;
    throw Error(ErrorKind::Numeric, fmt::format("the {} must be finite, but is {}", i == 0 ? "loss" : "loss term " + terms[i], sums[i]),
                "logits are NaN or infinite, or the student gives probability 0 where the teacher does not");
  }
}

}  // namespace

std::int64_t chunk_rows(std::int64_t vocab) { return std::clamp<std::int64_t>((96ll << 20) / (4 * vocab), 32, 512); }

TeacherLogits teacher_head(const at::Tensor& hidden, const at::Tensor& head, std::int64_t vocab) {
  const at::Tensor rows_of = hidden.detach().reshape({-1, head.size(1)}), weight = head.detach().narrow(0, 0, vocab).t();
  return {vocab, [=](const at::Tensor& rows, at::Tensor out) { at::mm_out(out, rows_of.index_select(0, rows), weight); }};
}

HeadLoss head_loss(const HeadLossInput& input, const RowLoss& loss) {
  Chunks chunks(input, loss);
  HeadLoss result;
  result.rows = chunks.rows();
  result.loss = Fused::apply(input.hidden, input.head, &chunks, &result.sums, input.scale);
  require_finite(result.sums, loss.terms());
  return result;
}

}  // namespace slmc::engine
