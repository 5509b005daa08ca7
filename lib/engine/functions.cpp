#include "engine/functions.h"

#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "core/error.h"
#include "engine/attention.h"
#include "engine/simd.h"

namespace slmc::engine {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr std::int64_t kRowsOfTile = 64, kEntriesOfPiece = 16'384;

void require_first_order() {
  if (at::GradMode::is_enabled()) {
    throw Error(ErrorKind::Unsupported, "a fused step must be differentiated once, but a second derivative was asked for");
  }
}

const float* values(const at::Tensor& t) { return t.const_data_ptr<float>(); }
float* target(at::Tensor& t) { return t.data_ptr<float>(); }

// body(first, count) for pieces of n entries.
template <typename Body>
void for_pieces(std::int64_t n, std::int64_t piece, Body body) {
  const std::int64_t pieces = (n + piece - 1) / piece;
  at::parallel_for(0, pieces, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) body(i * piece, std::min(piece, n - i * piece));
  });
}

// ---- RMS norm: y = x r g with r = 1 / sqrt(mean x^2 + eps);  dx = r (g dy - x r^2 mean(x g dy)),  dg = sum over rows of dy x r ----

SLMC_SIMD float rate_of_row(const float* x, std::int64_t n, float eps) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < n; ++i) sum += x[i] * x[i];
  return 1.0f / std::sqrt(sum / static_cast<float>(n) + eps);
}

SLMC_SIMD void norm_row(const float* x, const float* gain, std::int64_t n, float rate, float* y) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) y[i] = x[i] * rate * gain[i];
}

SLMC_SIMD void norm_row_backward(const float* x, const float* gain, const float* dy, std::int64_t n, float rate, float* dx, float* d_gain) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < n; ++i) sum += x[i] * gain[i] * dy[i];
  const float pull = rate * rate * rate * sum / static_cast<float>(n);
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) dx[i] = rate * gain[i] * dy[i] - x[i] * pull;
  if (!d_gain) return;
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) d_gain[i] += dy[i] * x[i] * rate;
}

at::Tensor normed(const at::Tensor& x, const at::Tensor& gain, const at::Tensor& rates) {
  at::Tensor y = at::empty_like(x);
  const std::int64_t n = x.size(-1);
  for_pieces(rates.numel(), kRowsOfTile, [&](std::int64_t first, std::int64_t count) {
    for (std::int64_t r = first; r < first + count; ++r) norm_row(values(x) + r * n, values(gain), n, values(rates)[r], target(y) + r * n);
  });
  return y;
}

struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& gain, double eps) {
    const at::Tensor in = x.contiguous(), g = gain.contiguous();
    const std::int64_t n = in.size(-1), rows = in.numel() / std::max<std::int64_t>(n, 1);
    at::Tensor rates = at::empty({rows}, in.options());
    for_pieces(rows, kRowsOfTile, [&](std::int64_t first, std::int64_t count) {
      for (std::int64_t r = first; r < first + count; ++r) target(rates)[r] = rate_of_row(values(in) + r * n, n, static_cast<float>(eps));
    });
    ctx->save_for_backward({in, g, rates});
    return normed(in, g, rates);
  }

  static variable_list backward(AutogradContext* ctx, variable_list upstream) {
    require_first_order();
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &gain = saved[1], &rates = saved[2], dy = upstream[0].contiguous();
    const std::int64_t n = x.size(-1), rows = rates.size(0), tiles = (rows + kRowsOfTile - 1) / kRowsOfTile;
    at::Tensor dx = at::empty_like(x), parts;
    if (ctx->needs_input_grad(1)) parts = at::zeros({tiles, n}, x.options());
    for_pieces(rows, kRowsOfTile, [&](std::int64_t first, std::int64_t count) {
      float* part = parts.defined() ? target(parts) + first / kRowsOfTile * n : nullptr;
      for (std::int64_t r = first; r < first + count; ++r) {
        norm_row_backward(values(x) + r * n, values(gain), values(dy) + r * n, n, values(rates)[r], target(dx) + r * n, part);
      }
    });
    return {dx, parts.defined() ? parts.sum(0) : at::Tensor(), {}};
  }
};

// ---- gated SiLU: y = g s u with s = 1 / (1 + exp(-g));  du = dy g s,  dg = dy u s (1 + g (1 - s)) ----

SLMC_INLINE float logistic(float x) {
  const float e = simd::exp_nonpositive(x < 0 ? x : -x);
  return (x < 0 ? e : 1.0f) / (1.0f + e);
}

SLMC_SIMD void gate_piece(const float* g, const float* u, std::int64_t n, float* y) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) y[i] = g[i] * logistic(g[i]) * u[i];
}

SLMC_SIMD void gate_piece_backward(const float* g, const float* u, const float* dy, std::int64_t n, float* dg, float* du) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    const float s = logistic(g[i]);
    dg[i] = dy[i] * u[i] * s * (1.0f + g[i] * (1.0f - s));
    du[i] = dy[i] * g[i] * s;
  }
}

at::Tensor gated(const at::Tensor& g, const at::Tensor& u) {
  at::Tensor y = at::empty_like(g);
  for_pieces(g.numel(), kEntriesOfPiece, [&](std::int64_t at, std::int64_t n) { gate_piece(values(g) + at, values(u) + at, n, target(y) + at); });
  return y;
}

struct GatedSilu : torch::autograd::Function<GatedSilu> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate, const at::Tensor& up) {
    const at::Tensor g = gate.contiguous(), u = up.contiguous();
    ctx->save_for_backward({g, u});
    return gated(g, u);
  }

  static variable_list backward(AutogradContext* ctx, variable_list upstream) {
    require_first_order();
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &g = saved[0], &u = saved[1], dy = upstream[0].contiguous();
    at::Tensor dg = at::empty_like(g), du = at::empty_like(g);
    for_pieces(g.numel(), kEntriesOfPiece, [&](std::int64_t at, std::int64_t n) {
      gate_piece_backward(values(g) + at, values(u) + at, values(dy) + at, n, target(dg) + at, target(du) + at);
    });
    return {dg, du};
  }
};

// ---- linear map: y = x W^T + b;  dx = dy W,  dW = dy^T x,  db = sum over rows of dy ----

// What the step that made x keeps for its own backward, if x is cheaper to make again from it than to keep; else x.
template <typename Step>
torch::autograd::CppNode<Step>* made_by(const at::Tensor& x) {
  return dynamic_cast<torch::autograd::CppNode<Step>*>(x.grad_fn().get());
}
variable_list source_of(const at::Tensor& x) {
  if (auto* norm = made_by<RmsNorm>(x)) return norm->ctx_.get_saved_variables();
  if (auto* gate = made_by<GatedSilu>(x)) return gate->ctx_.get_saved_variables();
  return {x};
}
at::Tensor made_again(const variable_list& source) {
  switch (source.size()) {
    case 3: return normed(source[0], source[1], source[2]);
    case 2: return gated(source[0], source[1]);
    default: return source[0];
  }
}

at::Tensor rows_of(const at::Tensor& x) { return x.reshape({-1, x.size(-1)}); }

struct Linear : torch::autograd::Function<Linear> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
    variable_list saved = {weight};
    if (weight.requires_grad()) {
      for (const at::Tensor& t : source_of(x)) saved.push_back(t);
    }
    ctx->save_for_backward(saved);
    ctx->saved_data["biased"] = bias.has_value();
    return at::linear(x, weight, bias);
  }

  static variable_list backward(AutogradContext* ctx, variable_list upstream) {
    require_first_order();
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &weight = saved[0], dy = rows_of(upstream[0]);
    at::Tensor dx, dw, db;
    if (ctx->needs_input_grad(1)) dw = dy.t().mm(rows_of(made_again({saved.begin() + 1, saved.end()})));
    if (ctx->needs_input_grad(0)) {
      std::vector<std::int64_t> shape = upstream[0].sizes().vec();
      shape.back() = weight.size(1);
      dx = dy.mm(weight).view(shape);
    }
    if (ctx->saved_data["biased"].toBool() && ctx->needs_input_grad(2)) db = dy.sum(0);
    return {dx, dw, db};
  }
};

// ---- rotation: (a, b) -> (a c - b s, b c + a s); its gradient is the rotation by the opposite angle ----

SLMC_SIMD void rotate_head(const float* x, const float* cos, const float* sin, std::int64_t freq, std::int64_t width, float sign, float* y) {
#pragma omp simd
  for (std::int64_t f = 0; f < freq; ++f) {
    const float a = x[f], b = x[freq + f], s = sin[f] * sign;
    y[f] = a * cos[f] - b * s;
    y[freq + f] = b * cos[f] + a * s;
  }
  for (std::int64_t i = 2 * freq; i < width; ++i) y[i] = x[i];
}

at::Tensor rotated(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, float sign) {
  const std::int64_t tokens = x.size(1), heads = x.size(2), width = x.size(3), freq = cos.size(-1);
  at::Tensor y = at::empty_like(x);
  for_pieces(x.size(0) * tokens, kRowsOfTile, [&](std::int64_t first, std::int64_t count) {
    for (std::int64_t row = first; row < first + count; ++row) {
      const float *c = values(cos) + row % tokens * freq, *s = values(sin) + row % tokens * freq;
      for (std::int64_t h = row * heads; h < (row + 1) * heads; ++h) rotate_head(values(x) + h * width, c, s, freq, width, sign, target(y) + h * width);
    }
  });
  return y;
}

struct Rotate : torch::autograd::Function<Rotate> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
    ctx->save_for_backward({cos, sin});
    return rotated(x.contiguous(), cos, sin, 1.0f);
  }
  static variable_list backward(AutogradContext* ctx, variable_list upstream) {
    require_first_order();
    const auto saved = ctx->get_saved_variables();
    return {rotated(upstream[0].contiguous(), saved[0], saved[1], -1.0f), {}, {}};
  }
};

// ---- attention (attention.h) ----

AttentionShape shape_of(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale) {
  return {q.size(0), q.size(1), q.size(2), k.size(2), q.size(3), v.size(3), scale};
}

struct Attention : torch::autograd::Function<Attention> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values_in, double scale,
                            const std::optional<at::Tensor>& first) {
    const at::Tensor q = queries.contiguous(), k = keys.contiguous(), v = values_in.contiguous();
    const AttentionShape shape = shape_of(q, k, v, scale);
    at::Tensor out = at::empty({shape.batch, shape.tokens, shape.heads, shape.vd}, q.options());
    at::Tensor lse = at::empty({shape.batch, shape.heads, shape.tokens}, q.options());
    const at::Tensor from = first ? first->contiguous() : at::Tensor();
    attention_forward(shape, values(q), values(k), values(v), from.defined() ? from.const_data_ptr<std::int64_t>() : nullptr, target(out),
                      target(lse));
    ctx->save_for_backward({q, k, v, out, lse, from});
    ctx->saved_data["scale"] = scale;
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list upstream) {
    require_first_order();
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], &out = saved[3], &lse = saved[4], &from = saved[5];
    const at::Tensor d_out = upstream[0].contiguous();
    at::Tensor dq = at::empty_like(q), dk = at::empty_like(k), dv = at::empty_like(v);
    attention_backward(shape_of(q, k, v, ctx->saved_data["scale"].toDouble()), values(q), values(k), values(v),
                       from.defined() ? from.const_data_ptr<std::int64_t>() : nullptr, values(out), values(lse), values(d_out), target(dq),
                       target(dk), target(dv));
    return {dq, dk, dv, {}, {}};
  }
};

}  // namespace

bool can_fuse(const at::Tensor& x) {
  return x.device().is_cpu() && x.scalar_type() == at::kFloat && !at::autocast::is_autocast_enabled(at::kCPU);
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& gain, double eps) { return RmsNorm::apply(x, gain, eps); }

at::Tensor gated_silu(const at::Tensor& gate, const at::Tensor& up) { return GatedSilu::apply(gate, up); }

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  return Linear::apply(x, weight, bias.defined() ? std::optional(bias) : std::nullopt);
}

at::Tensor rotate_pairs(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  SLMC_CHECK(cos.is_contiguous() && sin.is_contiguous() && cos.size(0) == x.size(1) && 2 * cos.size(1) <= x.size(3));
  return Rotate::apply(x, cos, sin);
}

at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale, const at::Tensor& first) {
  SLMC_CHECK(attention_supported(shape_of(q, k, v, scale)) && q.size(1) == k.size(1) && k.size(1) == v.size(1));
  return Attention::apply(q, k, v, scale, first.defined() ? std::optional(first) : std::nullopt);
}

}  // namespace slmc::engine
