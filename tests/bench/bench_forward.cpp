// Question: where does the time of a forward pass go, and how far is each part from the arithmetic of the machine?
// Alternatives in the same run: the sum of the parts, each alone and warm, against the whole pass; attention with gradients by LibTorch.
// Roof: fused multiply-adds in registers.
// Against another implementation: tests/bench/forward_vs_transformers.py.
//
// usage: bench_forward MODEL [BATCH SEQ RUNS]      one thread; least CPU-seconds of RUNS
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include <cstdio>
#include <cstdlib>
#include <functional>

#include "engine/evaluate.h"
#include "engine/head.h"
#include "engine/kernels.h"
#include "engine/layers.h"
#include "ir/cost.h"

namespace slmc::engine {
namespace {

struct Bench {
  Loaded model;
  std::int64_t batch, seq;
  int runs;
  double peak;

  double rows() const { return static_cast<double>(batch * seq); }

  // One line: what, CPU seconds, 1e9 operations per CPU second, share of the peak (blank for parts that multiply nothing).
  double line(const char* what, double flops, const std::function<void()>& body) const {
    double best = 1e30;
    for (int i = 0; i < runs; ++i) {
      const double start = cpu_seconds();
      body();
      best = std::min(best, cpu_seconds() - start);
    }
    std::printf("%-28s %8.3f s", what, best);
    if (flops > 0) std::printf(" %8.1f GFLOP/s %6.1f %%", flops / best / 1e9, 100 * flops / best / 1e9 / peak);
    std::printf("\n");
    return best;
  }

  double matrix(const char* name) {
    const at::Tensor w = model.weights.tensor(std::string("block.0.") + name);
    return 2.0 * static_cast<double>(w.numel()) * rows();
  }
};

// Every step of one block on values of its own kind, as often as there are blocks.
double parts(Bench& b) {
  const ir::BlockSizes& s = b.model.arch.sizes.blocks[0];
  const ir::Decoder& o = b.model.arch.options;
  const auto n = static_cast<double>(b.model.arch.sizes.blocks.size());
  const auto each = [&](const std::function<void()>& body) {
    return [body, n] {
      for (int i = 0; i < static_cast<int>(n); ++i) body();
    };
  };
  const at::Tensor x = at::randn({b.batch, b.seq, b.model.arch.sizes.hidden});
  PlainWeights& w = b.model.weights;
  const at::Tensor gain = w.tensor("block.0.attn.norm");
  const at::Tensor bias = w.has("block.0.attn.norm.bias") ? w.tensor("block.0.attn.norm.bias") : at::Tensor();
  const at::Tensor q = w.linear("block.0.attn.q", x).view({b.batch, b.seq, s.heads(), s.head_dim()});
  const at::Tensor k = w.linear("block.0.attn.k", x).view({b.batch, b.seq, s.kv, s.head_dim()});
  const at::Tensor v = w.linear("block.0.attn.v", x).view({b.batch, b.seq, s.kv, s.vd});
  const Visible visible({b.seq, b.seq, std::nullopt, {}});
  const at::Tensor mixed = attend(q, k, v, o.attn_scale, visible).reshape({b.batch, b.seq, s.heads() * s.vd});
  const at::Tensor up = w.linear("block.0.ffn.up", x), gate = o.gated ? w.linear("block.0.ffn.gate", x) : up;
  double sum = 0;
  sum += b.line("norms", 0, each([&] { (void)normalize(o.norm, x, gain, bias, o.norm_eps), (void)normalize(o.norm, x, gain, bias, o.norm_eps); }));
  sum += b.line("q, k, v", n * (b.matrix("attn.q") + b.matrix("attn.k") + b.matrix("attn.v")), each([&] {
    (void)w.linear("block.0.attn.q", x), (void)w.linear("block.0.attn.k", x), (void)w.linear("block.0.attn.v", x);
  }));
  if (s.freq > 0) {
    const RopeTable table = rope_table(w.tensor("block.0.attn.rope"), o.rope_factor, 0, b.seq, at::kFloat, at::kCPU);
    sum += b.line("rotation", 0, each([&] { (void)rotate(q, table), (void)rotate(k, table); }));
  }
  const double scores = static_cast<double>(s.heads() * (s.head_dim() + s.vd)) * static_cast<double>(b.seq + 1);    // causal: half of the square
  sum += b.line("attention", n * b.rows() * scores, each([&] { (void)attend(q, k, v, o.attn_scale, visible); }));
  sum += b.line("o", n * b.matrix("attn.o"), each([&] { (void)w.linear("block.0.attn.o", mixed); }));
  sum += b.line("up, gate", n * (o.gated ? 2 : 1) * b.matrix("ffn.up"), each([&] {
    (void)w.linear("block.0.ffn.up", x);
    if (o.gated) (void)w.linear("block.0.ffn.gate", x);
  }));
  sum += b.line("activation", 0, each([&] { (void)(o.gated ? gated_activation(o.activation, gate, up) : activate(o.activation, up)); }));
  sum += b.line("down", n * b.matrix("ffn.down"), each([&] { (void)w.linear("block.0.ffn.down", up); }));
  sum += b.line("residual", 0, each([&] { (void)(x + x), (void)(x + x); }));
  return sum;
}

// Attention of all blocks, forward and backward: ours, then LibTorch's.
void attention_with_gradients(const Bench& b) {
  const at::AutoGradMode record(true);
  const ir::BlockSizes& s = b.model.arch.sizes.blocks[0];
  const double scale = b.model.arch.options.attn_scale;
  const auto values = [&](std::int64_t heads, std::int64_t width) { return at::randn({b.batch, b.seq, heads, width}).requires_grad_(); };
  const at::Tensor q = values(s.heads(), s.head_dim()), k = values(s.kv, s.head_dim()), v = values(s.kv, s.vd);
  const at::Tensor upstream = at::randn({b.batch, b.seq, s.heads(), s.vd});
  const Visible visible({b.seq, b.seq, std::nullopt, {}});
  const auto n = static_cast<int>(b.model.arch.sizes.blocks.size());
  b.line("attention, with gradients", 0, [&] {
    for (int i = 0; i < n; ++i) attend(q, k, v, scale, visible).backward(upstream);
  });
  if (s.head_dim() != s.vd) return;
  b.line("the same by LibTorch", 0, [&] {
    for (int i = 0; i < n; ++i) {
      at::scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), {}, 0.0, true, scale, s.heads() != s.kv)
          .backward(upstream.transpose(1, 2));
    }
  });
}

int run(int argc, char** argv) {
  if (argc < 2) {
    std::fputs("usage: bench_forward MODEL [BATCH SEQ RUNS]\n", stderr);
    return 2;
  }
  at::set_num_threads(1);
  const at::NoGradGuard no_grad;
  const ir::Model files = ir::load(argv[1]);
  const auto number = [&](int i, int fallback) { return argc > i ? std::atoi(argv[i]) : fallback; };
  std::printf("products by %s\n", to_string(choose_kernels("auto").gemm).c_str());
  Bench b{load(files, at::kFloat, at::kCPU), number(2, 4), number(3, 512), number(4, 3), peak_gflops()};
  std::printf("peak %.1f GFLOP/s of one core, %lld x %lld tokens\n", b.peak, static_cast<long long>(b.batch), static_cast<long long>(b.seq));
  const at::Tensor ids = at::randint(0, b.model.arch.sizes.vocab, {b.batch, b.seq}, at::kLong);
  const Head head = head_of(b.model.arch, b.model.weights);
  const double head_flops = 2.0 * static_cast<double>(head.weight.numel()) * b.rows();
  const double all_flops = ir::cost(files, b.seq / 2).flops_per_token * b.rows();                  // a token sees half of the window on average
  const at::Tensor h = hidden_states(b.model.arch, b.model.weights, ids).view({-1, head.weight.size(1)});
  const double in_parts = parts(b) + b.line("log-probabilities of targets", head_flops, [&] { (void)target_log_probs(head, h, ids.flatten()); });
  std::printf("%-28s %8.3f s\n", "sum of the parts", in_parts);
  const double whole = b.line("whole pass", all_flops, [&] {
    const at::Tensor rows = hidden_states(b.model.arch, b.model.weights, ids).view({-1, head.weight.size(1)});
    (void)target_log_probs(head, rows, ids.flatten());
  });
  std::printf("%.0f tokens per CPU-second\n", b.rows() / whole);
  attention_with_gradients(b);
  return 0;
}

}  // namespace
}  // namespace slmc::engine

int main(int argc, char** argv) {
  slmc::engine::keep_pages();
  return slmc::engine::run(argc, argv);
}
