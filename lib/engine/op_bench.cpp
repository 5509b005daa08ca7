// The ops bench and doctor: rates of this model on this machine, and of the machine alone.
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/randint.h>
#include <torch/version.h>

#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>

#include "core/cancel.h"
#include "engine/devices.h"
#include "engine/head.h"
#include "engine/kernels.h"
#include "engine/ops.h"
#include "ir/cost.h"
#include "stage/measures.h"

namespace slmc::engine {
namespace {

double now_s() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Timed {
  double cpu_s = 1e300, wall_s = 1e300;       // of the fastest run, each
};

Timed fastest(std::int64_t runs, const std::function<void()>& body) {
  Timed best;
  for (std::int64_t i = 0; i < runs; ++i) {
    cancel_point("nothing was written");
    const double wall = now_s(), cpu = cpu_seconds();
    body();
    best.cpu_s = std::min(best.cpu_s, cpu_seconds() - cpu);
    best.wall_s = std::min(best.wall_s, now_s() - wall);
  }
  return best;
}

// `peak` is of one core, so the share compares operations per CPU second.
Json row(const char* what, std::int64_t batch, std::int64_t seq, std::int64_t tokens, const Timed& t, double flops, double peak) {
  const double gflops = flops / t.cpu_s / 1e9;
  return {{"what", what},       {"batch", batch},
          {"seq", seq},         {"tokens", tokens},
          {"cpu_s", t.cpu_s},   {"wall_s", t.wall_s},
          {"tokens_per_s", static_cast<double>(tokens) / t.wall_s}, {"tokens_per_cpu_s", static_cast<double>(tokens) / t.cpu_s},
          {"flops", flops},     {"gflops", gflops},
          {"share_of_peak", gflops / peak}};
}

// Every logit is computed, in tiles, and reduced to the likeliest token of each position.
void forward(Loaded& model, const at::Tensor& ids) {
  const at::Tensor h = hidden_states(model.arch, model.weights, ids);
  (void)likeliest(head_of(model.arch, model.weights), h.view({-1, h.size(2)}));
}

Json run_bench(OpContext& context) {
  const at::NoGradGuard no_grad;
  const stage::Settings& s = context.job.settings;
  const std::int64_t batch = s.integer("batch"), seq = s.integer("seq"), decode = s.integer("decode"), repeat = s.integer("repeat");
  Loaded model = load(context.model(), at::kFloat, context.device);
  const double peak = peak_gflops();
  // In a whole window a token sees half of it on average; a decoded token sees all before it.
  const double per_token = ir::cost(context.model(), seq / 2).flops_per_token, last_token = ir::cost(context.model(), seq).flops_per_token;
  const at::Tensor ids = at::randint(0, model.arch.sizes.vocab, {batch, seq}, at::kLong).to(context.device);
  Json rows = Json::array();
  forward(model, ids.narrow(0, 0, 1));                                        // warm-up
  rows.push_back(row("forward", batch, seq, batch * seq, fastest(repeat, [&] { forward(model, ids); }),
                     per_token * static_cast<double>(batch * seq), peak));
  context.events.progress("bench", 1, 3);

  const Head head = head_of(model.arch, model.weights);
  std::optional<KvCache> cache;
  Pass pass;
  const auto run = [&](const at::Tensor& part) {
    const at::Tensor h = hidden_states(model.arch, model.weights, part, pass);
    cache->advance(part.size(1));
    (void)likeliest(head, h.select(1, h.size(1) - 1));                        // only the last position is wanted
  };
  const Timed prefill = fastest(repeat, [&] {
    cache.emplace(model.arch, 1, seq + std::max<std::int64_t>(decode, 1), at::kFloat, context.device);
    pass.cache = &*cache;
    run(ids.narrow(0, 0, 1));
  });
  const double body = per_token - 2.0 * static_cast<double>(head.weight.numel());
  rows.push_back(row("prefill", 1, seq, seq, prefill, body * static_cast<double>(seq), peak));
  context.events.progress("bench", 2, 3);
  if (decode > 0) {
    const Timed one = fastest(repeat, [&] {
      cache->truncate(seq);
      for (std::int64_t i = 0; i < decode; ++i) run(ids.narrow(0, 0, 1).narrow(1, i % seq, 1));
    });
    rows.push_back(row("decode", 1, seq, decode, one, last_token * static_cast<double>(decode), peak));
  }
  context.events.progress("bench", 3, 3);
  return {{"rows", rows}, {"peak_gflops", peak}, {"gemm", to_json(current_kernels())}, {"threads", at::get_num_threads()}};
}

Json run_doctor(OpContext& context) {
  Json gemm = to_json(current_kernels());
  gemm["peak_gflops"] = peak_gflops();
  return {{"torch", running_torch()},
          {"torch_built", TORCH_VERSION},
          {"cuda", has_cuda()},
          {"device", device_name(context.device)},
          {"devices", device_names()},
          {"gemm", gemm},
          {"threads", at::get_num_threads()}};
}

}  // namespace

void add_bench(Ops& ops) {
  add_op(ops, stage::bench_info(), run_bench);
  add_op(ops, stage::doctor_info(), run_doctor);
}

}  // namespace slmc::engine
