#pragma once
// Parts of a block as single steps with gradients written by hand: fewer passes over memory and fewer values kept for backward than
// operators strung together. layers.cpp takes them where can_fuse says so and ATen's operators everywhere else; tests hold both together.
//
//   step               kept for backward                    instead of
//   rms_norm           x, one number per row                x, x / rms
//   gated_silu         gate, up                             gate, silu(gate), up
//   linear             x, or what one of these two kept     x: a third of what a block keeps in all
//   rotate_pairs       nothing                              nothing, but six passes
//   causal_attention   q, k, v, out, one number per row     the same
//
// Second derivatives are an error, never zero. Gradients of gains are summed over tiles of rows in order: the same bits for any number
// of threads.
#include <ATen/core/Tensor.h>

namespace slmc::engine {

// fp32 on the CPU, without autocast.
bool can_fuse(const at::Tensor& x);

// x / sqrt(mean(x^2) + eps) * gain over the last dimension; x [.., n], gain [n].
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& gain, double eps);

// silu(gate) * up, same shapes.
at::Tensor gated_silu(const at::Tensor& gate, const at::Tensor& up);

// x weight^T + bias: x [.., in], weight [out, in], bias [out] or undefined. An x that rms_norm or gated_silu made is not kept but made again.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

// Turns pairs (x_f, x_{freq+f}) by their angles; entries from 2 freq on pass. x [B, T, heads, d], cos and sin [T, freq].
at::Tensor rotate_pairs(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

// softmax(scale q k^T) v over keys first .. own position. q [B, T, heads, d], k [B, T, groups, d], v [B, T, groups, vd], first [B, T] int64
// or undefined -> [B, T, heads, vd]. Only where attention_supported (attention.h) says so.
at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale, const at::Tensor& first);

}  // namespace slmc::engine
