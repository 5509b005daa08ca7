#include "engine/layers.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/rms_norm.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/zeros.h>

#include <limits>

#include "core/error.h"
#include "engine/attention.h"
#include "engine/functions.h"

namespace slmc::engine {
namespace {

at::Tensor normalize_gated(ir::Norm kind, const at::Tensor& x, double eps, const at::Tensor& gate) {
  const at::Tensor share = gate / gate.sum();                                       // [n], sums to 1
  const at::Tensor centred = kind == ir::Norm::Layer ? x - (x * share).sum(-1, true) : x;
  return centred * at::rsqrt((centred * centred * share).sum(-1, true) + eps);
}

at::Tensor pad_last(const at::Tensor& x, std::int64_t size) {
  return x.size(-1) == size ? x : at::constant_pad_nd(x, {0, size - x.size(-1)});
}

}  // namespace

at::Tensor normalize(ir::Norm kind, const at::Tensor& x, const at::Tensor& gain, const at::Tensor& bias, double eps,
                     const at::Tensor& gate) {
  if (gate.defined()) {
    const at::Tensor y = normalize_gated(kind, x, eps, gate) * gain;
    return bias.defined() ? y + bias : y;
  }
  if (kind == ir::Norm::Layer) return at::layer_norm(x, gain.sizes(), gain, bias, eps);
  const at::Tensor y = can_fuse(x) && can_fuse(gain) ? rms_norm(x, gain, eps) : at::rms_norm(x, gain.sizes(), gain, eps);
  return bias.defined() ? y + bias : y;
}

RopeTable rope_table(const at::Tensor& frequencies, double factor, std::int64_t start, std::int64_t tokens, at::ScalarType dtype,
                     at::Device device) {
  const at::Tensor angles = at::outer(at::arange(start, start + tokens, at::kDouble), frequencies.to(at::kCPU, at::kDouble));
  const auto rounded = [&](const at::Tensor& t) { return t.mul(factor).to(device, dtype); };
  return {rounded(angles.cos()), rounded(angles.sin())};
}

at::Tensor rotate(const at::Tensor& x, const RopeTable& table) {
  const std::int64_t freq = table.cos.size(-1);
  if (freq == 0) return x;
  if (can_fuse(x)) return rotate_pairs(x, table.cos, table.sin);
  const at::Tensor cos = table.cos.unsqueeze(1), sin = table.sin.unsqueeze(1);      // [T, 1, freq]
  const at::Tensor a = x.narrow(-1, 0, freq), b = x.narrow(-1, freq, freq);
  const std::int64_t pass = x.size(-1) - 2 * freq;
  if (pass == 0) return at::cat({a * cos - b * sin, b * cos + a * sin}, -1);
  return at::cat({a * cos - b * sin, b * cos + a * sin, x.narrow(-1, 2 * freq, pass)}, -1);
}

at::Tensor activate(ir::Activation kind, const at::Tensor& x) {
  switch (kind) {
    case ir::Activation::Silu: return at::silu(x);
    case ir::Activation::Gelu: return at::gelu(x);
    case ir::Activation::GeluTanh: return at::gelu(x, "tanh");
    case ir::Activation::Relu: return at::relu(x);
  }
  internal_error(__FILE__, __LINE__, "unknown activation");
}

at::Tensor gated_activation(ir::Activation kind, const at::Tensor& gate, const at::Tensor& up) {
  return kind == ir::Activation::Silu && can_fuse(gate) ? gated_silu(gate, up) : activate(kind, gate) * up;
}

at::Tensor first_keys(const Sight& sight) {
  const std::int64_t tokens = sight.keys;
  const bool windowed = sight.window && tokens > *sight.window;
  if (sight.queries != sight.keys || (!windowed && !sight.document.defined())) return {};
  const at::Tensor position = at::arange(tokens, at::kLong).unsqueeze(0);
  at::Tensor first = windowed ? (position - *sight.window + 1).clamp_min(0) : at::zeros({1, tokens}, at::kLong);
  if (!sight.document.defined() || tokens < 2) return first;
  const at::Tensor document = sight.document.to(at::kCPU), step = document.diff(1, 1).ne(0);        // [B, T - 1]
  SLMC_CHECK(document.diff(1, 1).ge(0).all().item<bool>());
  const at::Tensor starts = at::cat({at::zeros({document.size(0), 1}, at::kLong), step * position.narrow(1, 1, tokens - 1)}, 1);
  return at::maximum(first, std::get<0>(starts.cummax(1)));
}

at::Tensor attention_mask(const Sight& sight, at::ScalarType dtype, at::Device device) {
  const bool windowed = sight.window && sight.keys > *sight.window;
  const bool shifted = sight.queries != sight.keys && sight.queries > 1;
  if (!windowed && !shifted && !sight.document.defined()) return {};
  const auto longs = at::TensorOptions(at::kLong).device(device);
  const at::Tensor query = at::arange(sight.keys - sight.queries, sight.keys, longs).unsqueeze(1);   // positions, [T, 1]
  const at::Tensor key = at::arange(sight.keys, longs).unsqueeze(0);                                 // [1, S]
  at::Tensor hidden = key > query;                                                                   // [T, S]
  if (windowed) hidden = hidden.logical_or(key <= query - *sight.window);
  hidden = hidden.unsqueeze(0);                                                                      // [1, T, S]
  if (sight.document.defined()) {
    SLMC_CHECK(sight.queries == sight.keys);
    const at::Tensor document = sight.document.to(device);
    hidden = hidden.logical_or(document.unsqueeze(2) != document.unsqueeze(1));                      // [B, T, S]
  }
  const at::Tensor zero = at::zeros(hidden.sizes(), at::TensorOptions(dtype).device(device));
  return zero.masked_fill_(hidden, -std::numeric_limits<double>::infinity()).unsqueeze(1);
}

Visible::Visible(Sight sight) : sight_(std::move(sight)), first_(first_keys(sight_)) {}

at::Tensor Visible::mask(const at::Tensor& like) const {
  if (!mask_) mask_ = attention_mask(sight_, like.scalar_type(), like.device());
  return *mask_;
}

namespace {

// The same for every window unless documents differ.
at::Tensor of_each_window(const at::Tensor& first, std::int64_t windows) {
  return first.defined() ? first.expand({windows, first.size(1)}) : first;
}

}  // namespace

at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale, const Visible& visible) {
  const AttentionShape shape{q.size(0), q.size(1), q.size(2), k.size(2), q.size(3), v.size(3), scale};
  if (can_fuse(q) && q.size(1) == k.size(1) && attention_supported(shape)) {
    return causal_attention(q, k, v, scale, of_each_window(visible.first(), q.size(0)));
  }
  // LibTorch's kernels want one head width: zeros at the end of q and k add nothing to scores, those of v give columns to cut off.
  const at::Tensor mask = visible.mask(q);
  const std::int64_t values = v.size(-1), width = std::max(q.size(-1), values);
  const at::Tensor queries = pad_last(q, width).transpose(1, 2), keys = pad_last(k, width).transpose(1, 2);
  const std::optional<at::Tensor> bias = mask.defined() ? std::optional(mask) : std::nullopt;
  const bool causal = !mask.defined() && q.size(1) > 1;
  SLMC_CHECK(!causal || q.size(1) == k.size(1));
  const at::Tensor out = at::scaled_dot_product_attention(queries, keys, pad_last(v, width).transpose(1, 2), bias, 0.0, causal, scale,
                                                          q.size(2) != k.size(2));
  return out.transpose(1, 2).narrow(-1, 0, values);
}

}  // namespace slmc::engine
