// Question: what does one training step cost, in CPU-seconds and against the arithmetic of the machine? Cross-entropy of the whole model,
// or distillation of the model without its middle blocks from the whole one; forward, backward, clipping and AdamW, by the one trainer.
// Roof: fused multiply-adds in registers. Against another implementation, and for memory: tests/bench/train_vs_transformers.py.
//
// usage: train_step MODEL ce|distill [DROP BATCH SEQ STEPS THREADS]      one line of JSON
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "distillation/distill_task.h"
#include "engine/kernels.h"
#include "engine/train/next_token.h"
#include "engine/train/parameters.h"
#include "engine/train/trainer.h"
#include "ir/cost.h"
#include "ir/plan.h"

namespace slmc {
namespace {

// Ids that any language makes alike: losses of both sides can be compared.
struct Ids : engine::Batches {
  Ids(std::int64_t length, std::int64_t of) : seq(length), vocab(of) {}
  engine::Batch at(std::int64_t first, std::int64_t windows) const override {
    at::Tensor ids = at::empty({windows, seq}, at::kLong);
    for (std::int64_t i = 0; i < ids.numel(); ++i) ids.mutable_data_ptr<std::int64_t>()[i] = 7919 * (first * seq + i) % vocab;
    return {ids, {}};
  }
  std::int64_t seq, vocab;
};

double wall_seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Notes loss and time of each step.
struct Watch : stage::Events {
  void emit(const Json& event) override {
    if (event.value("what", "") != "train") return;
    losses.push_back(event["loss"]);
    cpu.push_back(engine::cpu_seconds() - last_cpu);
    wall.push_back(wall_seconds() - last_wall);
    last_cpu += cpu.back();
    last_wall += wall.back();
  }
  std::vector<double> losses, cpu, wall;
  double last_cpu = engine::cpu_seconds(), last_wall = wall_seconds();
};

// The model without `count` blocks in its middle.
ir::Model without_middle(const ir::Model& whole, std::int64_t count) {
  const auto blocks = static_cast<std::int64_t>(whole.sizes().blocks.size());
  ir::Plan plan(whole);
  std::vector<std::int64_t>& kept = plan.take["block"];
  for (std::int64_t i = 0; i < blocks; ++i) {
    if (i < (blocks - count) / 2 || i >= (blocks - count) / 2 + count) kept.push_back(i);
  }
  return ir::apply(plan, whole);
}

// Multiplications and additions of a forward pass; a token sees half of its window on average.
double forward_flops(const ir::Model& model, std::int64_t batch, std::int64_t seq) {
  return ir::cost(model, seq / 2).flops_per_token * static_cast<double>(batch * seq);
}

int run(int argc, char** argv) {
  const std::string what = argc > 2 ? argv[2] : "";
  if (what != "ce" && what != "distill") {
    std::fputs("usage: train_step MODEL ce|distill [DROP BATCH SEQ STEPS THREADS]\n", stderr);
    return 2;
  }
  const auto number = [&](int i, std::int64_t fallback) { return argc > i ? std::atoll(argv[i]) : fallback; };
  const std::int64_t drop = number(3, what == "ce" ? 0 : 10), batch = number(4, 4), seq = number(5, 512);
  at::set_num_threads(static_cast<int>(number(7, 1)));
  const engine::Kernels kernels = engine::choose_kernels("auto");
  double peak = engine::peak_gflops();

  const ir::Model whole = ir::load(argv[1]), small = without_middle(whole, drop);
  double flops = 3 * forward_flops(small, batch, seq);
  engine::Loaded student = engine::load(small, at::kFloat, at::kCPU, engine::Storage::Owned), teacher;
  std::unique_ptr<engine::Task> task;
  if (what == "ce") {
    task = std::make_unique<engine::NextToken>(student, false);
  } else {
    teacher = engine::load(whole, at::kFloat, at::kCPU);
    task = std::make_unique<distillation::Distill>(student, teacher, distillation::ForwardKlSettings{}, false);
    flops += forward_flops(whole, batch, seq);
  }
  engine::TrainSettings settings;
  settings.batch = settings.micro_batch = batch;
  settings.schedule = {.kind = engine::Schedule::Kind::Constant, .peak = 1e-5, .steps = number(6, 3)};
  const Ids ids(seq, whole.sizes().vocab);
  Watch watch;
  engine::Single alone;
  engine::train(*task, engine::parameter_groups(student.weights, 0.0, {}), ids, settings, alone, watch);
  peak = std::max(peak, engine::peak_gflops());
  const Json line = {{"cpu_s", watch.cpu}, {"wall_s", watch.wall}, {"loss", watch.losses}, {"flops", flops}, {"peak_gflops", peak}, {"gemm", engine::to_string(kernels.gemm)},
                     {"share_of_peak", flops / *std::min_element(watch.cpu.begin(), watch.cpu.end()) / 1e9 / peak}};
  std::puts(line.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace slmc

int main(int argc, char** argv) {
  slmc::engine::keep_pages();
  return slmc::run(argc, argv);
}
