#include "engine/block.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>

namespace slmc::engine {

at::Tensor at_site(const Pass& pass, const std::string& site, at::Tensor value) {
  if (pass.edit && pass.edit->wants(site)) {
    const at::Tensor changed = pass.edit->change(site, value);
    SLMC_CHECK(changed.sizes() == value.sizes());
    value = changed;
  }
  if (pass.tap && pass.tap->wants(site)) pass.tap->see(site, value);
  return value;
}

at::Tensor gate_of(const Gates* gates, const std::string& axis, const at::Tensor& x) {
  const at::Tensor* gate = gates ? gates->find(axis) : nullptr;
  return gate ? gate->to(x.device(), x.scalar_type()) : at::Tensor();
}

bool is_closed(const at::Tensor& gate) { return gate.defined() && !gate.requires_grad() && gate.count_nonzero().item<std::int64_t>() == 0; }

std::string Block::name(const char* part) const { return "block." + std::to_string(number) + "." + part; }

at::Tensor Block::gate(const char* axis, const at::Tensor& x) const {
  return gates && !gates->of.empty() ? gate_of(gates, name(axis), x) : at::Tensor();
}

at::Tensor Block::linear(const char* part, const at::Tensor& x) const {
  const std::string full = name(part);
  if (!pass.tap && !pass.edit) return weights.linear(full, x);
  return at_site(pass, full + ".out", weights.linear(full, at_site(pass, full + ".in", x)));
}

at::Tensor Block::norm(const char* part, const at::Tensor& x) const {
  const std::string full = name(part);
  const at::Tensor hidden = gate_of(gates, "hidden", x);
  const at::Tensor bias = weights.has(full + ".bias") ? weights.tensor(full + ".bias") : at::Tensor();
  const at::Tensor y = normalize(arch.options.norm, x, weights.tensor(full), bias, arch.options.norm_eps, hidden);
  return hidden.defined() ? y * hidden : y;
}

bool Block::any_closed(std::initializer_list<const char*> axes, const at::Tensor& x) const {
  for (const char* axis : axes) {
    if (is_closed(gate(axis, x))) return true;
  }
  return false;
}

at::Tensor Block::forward(const at::Tensor& x) const {
  const at::Tensor all = gate_of(gates, "block", x);
  const at::Tensor own = all.defined() ? all[number] : at::Tensor();
  if (is_closed(own)) return x;
  const auto gated = [&](const at::Tensor& part) { return own.defined() ? part * own : part; };
  const bool attends = sizes().heads() * sizes().vd > 0 && !any_closed({"kv", "kv.q", "vd"}, x);
  const bool feeds = sizes().ffn > 0 && !any_closed({"ffn"}, x);

  at::Tensor y = attends ? x + gated(linear("attn.o", mix(norm("attn.norm", x)))) : x;
  if (!arch.options.parallel_residual) y = at_site(pass, name("mid"), y);
  if (!feeds) return y;
  return y + gated(linear("ffn.down", units(norm("ffn.norm", arch.options.parallel_residual ? x : y))));
}

// Rows of attn.q or attn.k as heads, normalised (Qwen3) and turned: [B, T, count, d]. `entries` gates them, [d] or undefined.
at::Tensor Block::heads(const char* part, const char* norm_part, const at::Tensor& normed, std::int64_t count,
                        const at::Tensor& entries) const {
  at::Tensor y = linear(part, normed).view({normed.size(0), normed.size(1), count, sizes().head_dim()});
  const std::string gain = name(norm_part);
  if (weights.has(gain)) y = normalize(ir::Norm::Rms, y, weights.tensor(gain), {}, arch.options.norm_eps, entries);
  return sizes().freq > 0 ? rotate(y, shared.rope) : y;
}

// Attention's output [B, T, heads, vd] behind the gates over groups, heads and value entries.
at::Tensor Block::open_heads(const at::Tensor& y) const {
  const at::Tensor kv = gate("kv", y), q = gate("kv.q", y), vd = gate("vd", y);
  at::Tensor out = y;
  if (kv.defined()) out = out * kv.unsqueeze(1).expand({sizes().kv, sizes().q}).reshape({sizes().heads(), 1});
  if (q.defined()) out = out * q.reshape({sizes().heads(), 1});
  return vd.defined() ? out * vd : out;
}

at::Tensor Block::mix(const at::Tensor& normed) const {
  const ir::BlockSizes& s = sizes();
  at::Tensor entries;                                  // gate over the entries of a head, [2 freq + pass]
  if (const at::Tensor freq = gate("freq", normed), pass_gate = gate("pass", normed); freq.defined() || pass_gate.defined()) {
    const at::Tensor turned = freq.defined() ? freq : at::ones({s.freq}, normed.options());
    entries = at::cat({turned, turned, pass_gate.defined() ? pass_gate : at::ones({s.pass}, normed.options())});
  }
  at::Tensor q = heads("attn.q", "attn.q_norm", normed, s.heads(), entries);
  at::Tensor k = heads("attn.k", "attn.k_norm", normed, s.kv, entries);
  at::Tensor v = linear("attn.v", normed).view({normed.size(0), normed.size(1), s.kv, s.vd});
  if (entries.defined()) q = q * entries;              // scores are sums over entries: gating q is enough
  if (pass.cache) {
    std::tie(k, v) = pass.cache->append(number, k.transpose(1, 2), v.transpose(1, 2));
    k = k.transpose(1, 2), v = v.transpose(1, 2);
  }
  const auto& windows = arch.options.window_blocks;
  const bool windowed = arch.options.window && windows[static_cast<std::size_t>(number)];
  const at::Tensor y = open_heads(attend(q, k, v, arch.options.attn_scale, windowed ? shared.window : shared.all));
  return y.reshape({normed.size(0), normed.size(1), s.heads() * s.vd});
}

at::Tensor Block::units(const at::Tensor& normed) const {
  const ir::Activation kind = arch.options.activation;
  at::Tensor h;
  if (arch.options.gated) {
    const at::Tensor g = linear("ffn.gate", normed);
    h = gated_activation(kind, g, linear("ffn.up", normed));
  } else {
    h = activate(kind, linear("ffn.up", normed));
  }
  const at::Tensor open = gate("ffn", h);
  return open.defined() ? h * open : h;
}

}  // namespace slmc::engine
