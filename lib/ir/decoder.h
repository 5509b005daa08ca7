#pragma once
// The options of the one decoder program, resolved from a model's config: everything the forward pass needs besides
// tensors. Presence of a tensor (bias, q_norm, pos, gate) is an option too, and is read off the tensor table, not here.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace slmc::ir {

enum class Norm { Rms, Layer };
enum class Activation { Silu, Gelu, GeluTanh, Relu };

struct Decoder {
  Norm norm = Norm::Rms;
  double norm_eps = 1e-5;
  Activation activation = Activation::Silu;
  bool gated = true;                        // ffn = act(gate) * up, else act(up)
  bool parallel_residual = false;           // x + attn(n1(x)) + ffn(n2(x)), else one after the other
  bool tied_head = false;                   // the head is the embedding
  double attn_scale = 0.125;                // factor on q.k; fixed at load, so that a cut head width keeps it
  double rope_factor = 1.0;                 // factor on cos and sin (attention factor of scaled rotary tables)
  std::optional<std::int64_t> window;       // sliding attention window in tokens, where window_blocks says so
  std::vector<bool> window_blocks;          // [block], empty when window is not set
  std::int64_t pos_offset = 0;              // row of the learned positions that the first token reads
  std::int64_t context = 0;                 // longest sequence the model was made for, tokens
  bool operator==(const Decoder&) const = default;
};

}  // namespace slmc::ir
