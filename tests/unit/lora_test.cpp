// Low-rank adapters and keeping the best: the base with B = 0, gradients, the merge, what PEFT reads, and stages that are stopped.
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "core/file.h"
#include "core/rng.h"
#include "distillation/ops.h"
#include "engine/op.h"
#include "engine/tensors.h"
#include "engine/train/keep_best.h"
#include "engine/train/lora.h"
#include "engine/train/next_token.h"
#include "engine/train/parameters.h"
#include "engine/train/window_batches.h"
#include "io/safetensors.h"
#include "ir/write.h"
#include "test_folder.h"
#include "train_testing.h"

namespace slmc::distillation {
namespace {

using engine::Loaded;
using engine::LoraWeights;
using slmc::testing::max_difference;
using slmc::testing::normal;
using slmc::testing::relative_difference;

const std::string kRoot = SLMC_SOURCE_DIR;
const std::string kTiny = kRoot + "/tests/data/tiny-trained";

struct Quiet : stage::Events {
  std::vector<Json> all;
  std::function<void(const Json&)> each = [](const Json&) {};
  void emit(const Json& event) override {
    all.push_back(event);
    each(event);
  }
};

engine::Batch batch_of(std::int64_t windows, std::int64_t seq) {
  const ir::Model model = ir::load(kTiny);
  const Json spec = {{"files", {kRoot + "/configs/data/calib.jsonl"}}, {"seq", seq}};
  return engine::WindowBatches(data::WindowSource(data::data_spec_from_json(spec, "test", "data"), *model.tokenizer()), true, at::kCPU).at(0, windows);
}

at::Tensor logits_of(const engine::Arch& arch, engine::Weights& weights, const at::Tensor& ids) {
  return engine::logits(arch, weights, engine::hidden_states(arch, weights, ids));
}

void randomise(const LoraWeights& lora, double deviation) {
  const at::NoGradGuard no_grad;
  std::uint64_t seed = 40;
  for (const auto& [name, adapter] : lora.adapters()) at::Tensor(adapter.b).copy_(normal(adapter.b.sizes(), ++seed, deviation));
}

TEST(Lora, WithBAtZeroTheModelIsTheBaseBitForBit) {
  const ir::Model model = ir::load(kTiny);
  Loaded base = engine::load(model, at::kFloat, at::kCPU, engine::Storage::Owned);
  LoraWeights lora(base.weights, model, {.rank = 4, .alpha = 8, .targets = {}}, 7);
  const at::NoGradGuard no_grad;
  const at::Tensor ids = batch_of(2, 64).ids;
  EXPECT_EQ(lora.adapters().size(), static_cast<std::size_t>(7 * model.blocks()));
  EXPECT_TRUE(logits_of(base.arch, lora, ids).equal(logits_of(base.arch, base.weights, ids)));
  randomise(lora, 0.1);
  EXPECT_FALSE(logits_of(base.arch, lora, ids).equal(logits_of(base.arch, base.weights, ids)));
}

// The oracle forms W + (alpha / r) B A of every matrix in fp64 and lets autograd go through it as through a plain model.
TEST(Lora, GradientsEqualAutogradThroughTheFullMatrices) {
  const ir::Model model = ir::load(kTiny);
  const engine::Batch batch = batch_of(3, 48);
  Loaded base = engine::load(model, at::kFloat, at::kCPU, engine::Storage::Owned);
  LoraWeights lora(base.weights, model, {.rank = 3, .alpha = 12, .targets = {}}, 7);
  randomise(lora, 0.05);
  engine::NextToken task(engine::ModelRef(base.arch, lora), false);
  const double n = static_cast<double>(task.count(batch));
  const auto sums = task.add_gradients(batch, 1 / n, 0);

  Loaded exact = engine::load(model, at::kDouble, at::kCPU, engine::Storage::Owned);
  std::map<std::string, std::pair<at::Tensor, at::Tensor>> leaves;
  for (const auto& [name, adapter] : lora.adapters()) {
    const at::Tensor a = adapter.a.detach().to(at::kDouble).requires_grad_(), b = adapter.b.detach().to(at::kDouble).requires_grad_();
    leaves[name] = {a, b};
    exact.weights.all()[name] = exact.weights.tensor(name).add(b.matmul(a), 12.0 / 3);
  }
  engine::Pass pass;
  pass.document = batch.document;
  const at::Tensor z = engine::logits(exact.arch, exact.weights, engine::hidden_states(exact.arch, exact.weights, batch.ids, pass)).flatten(0, 1);
  const at::Tensor target = engine::next_tokens(batch).flatten(), rows = target.ge(0).nonzero().squeeze(1);
  const at::Tensor loss = z.index_select(0, rows).log_softmax(1).gather(1, target.index_select(0, rows).unsqueeze(1)).sum().neg();
  loss.div(n).backward();
  EXPECT_NEAR(sums[0], loss.item<double>(), 1e-5 * loss.item<double>());
  for (const auto& [name, leaf] : leaves) {
    EXPECT_LE(relative_difference(lora.adapters().at(name).a.grad(), leaf.first.grad()), 5e-5) << name;
    EXPECT_LE(relative_difference(lora.adapters().at(name).b.grad(), leaf.second.grad()), 5e-5) << name;
    EXPECT_FALSE(base.weights.tensor(name).grad().defined()) << name;
  }
}

TEST(Lora, MergedActsAsUnmerged) {
  const ir::Model model = ir::load(kTiny);
  const at::NoGradGuard no_grad;
  const at::Tensor ids = batch_of(2, 64).ids;
  for (const auto& [type, tolerance] : {std::pair{at::kDouble, 1e-12}, {at::kFloat, 1e-6}}) {
    Loaded base = engine::load(model, type, at::kCPU, engine::Storage::Owned);
    LoraWeights lora(base.weights, model, {.rank = 8, .alpha = 16, .targets = {}}, 7);
    randomise(lora, 0.02);
    const at::Tensor before = logits_of(base.arch, lora, ids);
    EXPECT_GT(max_difference(logits_of(base.arch, base.weights, ids), before), 1e-3);
    lora.merge();
    EXPECT_LE(relative_difference(logits_of(base.arch, base.weights, ids), before), tolerance);
  }
}

TEST(Lora, TargetsAreChosenByPattern) {
  const ir::Model model = ir::load(kTiny);
  Loaded base = engine::load(model, at::kFloat, at::kCPU, engine::Storage::Owned);
  const LoraWeights lora(base.weights, model, {.rank = 2, .alpha = 2, .targets = {"block.*.attn.q", "block.1.ffn.*"}}, 7);
  EXPECT_EQ(lora.adapters().size(), static_cast<std::size_t>(model.blocks() + 3));
  EXPECT_EQ(lora.parameters(0.1).parameters.size(), 2 * lora.adapters().size());
  EXPECT_THROW(LoraWeights(base.weights, model, {.rank = 2, .alpha = 2, .targets = {"embed"}}, 7), Error);
}

// The layout that PEFT publishes: names, shapes and the keys of its config that a loader needs.
TEST(Lora, TheAdapterHasPeftsNamesAndShapes) {
  const ir::Model model = ir::load(kTiny);
  Loaded base = engine::load(model, at::kFloat, at::kCPU, engine::Storage::Owned);
  const LoraWeights lora(base.weights, model, {.rank = 5, .alpha = 10, .targets = {}}, 7);
  const std::filesystem::path folder = std::filesystem::path(::testing::TempDir()) / "slmc-peft-adapter";
  engine::write_peft(folder, lora, model);
  const auto file = io::SafetensorsFile::open(folder / "adapter_model.safetensors");
  EXPECT_EQ(file.tensors().size(), static_cast<std::size_t>(2 * 7 * model.blocks()));
  const ir::BlockSizes& s = model.sizes().blocks[0];
  const std::int64_t hidden = model.sizes().hidden;
  const std::vector<std::tuple<std::string, std::int64_t, std::int64_t>> layers = {
      {"self_attn.q_proj", hidden, s.heads() * s.head_dim()}, {"self_attn.k_proj", hidden, s.kv * s.head_dim()}, {"self_attn.v_proj", hidden, s.kv * s.vd},
      {"self_attn.o_proj", s.heads() * s.vd, hidden},         {"mlp.gate_proj", hidden, s.ffn},                  {"mlp.up_proj", hidden, s.ffn},
      {"mlp.down_proj", s.ffn, hidden}};
  for (const auto& [layer, in, out] : layers) {
    const std::string name = "base_model.model.model.layers.0." + layer;
    ASSERT_TRUE(file.find(name + ".lora_A.weight") && file.find(name + ".lora_B.weight")) << name;
    EXPECT_EQ(file.find(name + ".lora_A.weight")->shape, (std::vector<std::int64_t>{5, in})) << name;
    EXPECT_EQ(file.find(name + ".lora_B.weight")->shape, (std::vector<std::int64_t>{out, 5})) << name;
  }
  const Json config = read_json(folder / "adapter_config.json", ErrorKind::Model);
  EXPECT_EQ(config["peft_type"], "LORA");
  EXPECT_EQ(config["r"], 5);
  EXPECT_EQ(config["lora_alpha"], 10);
  EXPECT_EQ(config["target_modules"].get<std::set<std::string>>(),
            (std::set<std::string>{"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}));
  std::filesystem::remove_all(folder);
  // Where only some layers of a name are adapted they are named in full, or PEFT would adapt the others too.
  engine::write_peft(folder, LoraWeights(base.weights, model, {.rank = 2, .alpha = 2, .targets = {"block.*.attn.q", "block.1.ffn.down"}}, 7), model);
  EXPECT_EQ(read_json(folder / "adapter_config.json", ErrorKind::Model)["target_modules"].get<std::set<std::string>>(),
            (std::set<std::string>{"q_proj", "model.layers.1.mlp.down_proj"}));
  std::filesystem::remove_all(folder);
  const ir::Model fused = ir::load(kRoot + "/tests/data/tiny/gpt2");
  Loaded other = engine::load(fused, at::kFloat, at::kCPU, engine::Storage::Owned);
  EXPECT_THROW(engine::write_peft(folder, LoraWeights(other.weights, fused, {.rank = 2, .alpha = 2, .targets = {}}, 7), fused), Error);
}

TEST(KeepBest, TheResultIsTheLowestAndPatienceEndsTheRun) {
  Quiet events;
  at::Tensor w = normal({4}, 1);
  const std::vector<double> losses = {3, 2, 2.5, 1.5, 1.6, 1.7, 1.8};
  std::size_t asked = 0;
  engine::KeepBest best({.every = 2, .patience = 2}, {{"w", w}}, [&] { return losses.at(asked++); }, events);
  std::vector<at::Tensor> at_step;
  std::int64_t step = 0;
  for (;; ++step) {
    at_step.push_back(w.clone());
    if (!best.begin_step(step, 4 * step)) break;
    w.add_(1);
  }
  EXPECT_EQ(step, 10);                                     // measured at 0, 2, 4, 6 (lowest), 8, 10
  best.end(step);
  EXPECT_EQ(best.best_step(), 6);
  EXPECT_EQ(best.best_loss(), 1.5);
  EXPECT_TRUE(w.equal(at_step[6]));
  EXPECT_EQ(asked, 6u);                                    // not again at the end
}

class LoraStage : public FolderTest {
 protected:
  void SetUp() override {
    FolderTest::SetUp();
    at::set_num_threads(1);
    add_ops(ops_);
  }
  Json run(const std::string& op, const std::string& name, Json settings, stage::Events& events) {
    const Json valid = {{"files", {kRoot + "/configs/data/heldout.jsonl"}}, {"seq", 64}, {"samples", 8}};
    settings["valid"] = valid;
    if (op == "distill") settings["teacher"] = kTiny;
    Json json = {{"slmc_job", 1}, {"op", op}, {"model", kTiny}, {"out", (folder_ / name).string()}, {"seed", 3}, {"threads", 1}, {"gemm", "mkl"},
                 {"resume", (folder_ / (name + "-resume")).string()}, {"settings", std::move(settings)},
                 {"models", op == "distill" ? Json{{"teacher", kTiny}} : Json::object()}};
    json["data"] = {{"train", {{"files", {kRoot + "/configs/data/calib.jsonl"}}, {"seq", 64}}}, {"valid", valid}};
    const stage::Job job = stage::job_from_json(json, ops_.at(op).info->settings);
    engine::OpContext context(job, events, at::kCPU);
    return ops_.at(op).run(context);
  }
  engine::Ops ops_;
};

TEST_F(LoraStage, OnlyTheAdaptedMatricesChangeByTheAdaptersProduct) {
  Quiet events;
  run("train", "out", {{"tokens", "4k"}, {"lora", 4}, {"lora_alpha", 8}, {"lora_targets", "block.*.attn.v,block.0.ffn.up"}, {"lr", 1e-2}}, events);
  const ir::Model before = ir::load(kTiny), after = ir::load((folder_ / "out").string());
  const auto adapter = io::SafetensorsFile::open(folder_ / "out" / "adapter" / "adapter_model.safetensors");
  int changed = 0;
  for (const auto& [name, difference] : ir::compare(before, after)) {
    const bool target = name.ends_with("attn.v") || name == "block.0.ffn.up";
    EXPECT_EQ(difference > 0, target) << name;
    changed += difference > 0;
  }
  EXPECT_EQ(changed, static_cast<int>(before.blocks()) + 1);
  const auto read = [](const io::TensorData& data) { return engine::to_tensor(data, at::kDouble); };
  const std::string layer = "base_model.model.model.layers.0.mlp.up_proj";
  const at::Tensor product = read(adapter.read(layer + ".lora_B.weight")).matmul(read(adapter.read(layer + ".lora_A.weight"))).mul(2);
  EXPECT_LE(relative_difference(read(after.read("block.0.ffn.up")).sub(read(before.read("block.0.ffn.up"))), product), 1e-4);
}

TEST_F(LoraStage, KeepingTheBestIsNeverWorseThanTheStart) {
  Quiet events;
  const Json result = run("train", "out", {{"tokens", "6k"}, {"lora", 8}, {"lr", 0.5}, {"keep", "best"}, {"patience", 2}, {"valid_every", 3}}, events);
  EXPECT_EQ(result["kept"]["step"], 0);                    // at such a rate every update harms
  EXPECT_LT(result["steps"].get<int>(), 64);               // and the run ends early
  for (const auto& [name, difference] : ir::compare(ir::load(kTiny), ir::load((folder_ / "out").string()))) EXPECT_EQ(difference, 0) << name;
}

TEST_F(LoraStage, StoppedAnywhereAndResumedGivesTheSameBits) {
  const Json settings = {{"tokens", "3k"}, {"batch_tokens", "128"}, {"lora", 4}, {"lr", 3e-3}, {"keep", "best"}, {"valid_every", 4}, {"save_every", 3}};
  for (const std::string op : {"train", "distill"}) {
    SCOPED_TRACE(op);
    Quiet quiet;
    run(op, op, settings, quiet);
    const Rng rng(5);
    for (std::uint64_t i = 0; i < 3; ++i) {
      const std::string name = op + std::to_string(i);
      Quiet stopping;
      std::size_t left = 4 + static_cast<std::size_t>(rng.below(quiet.all.size() - 6, i));
      stopping.each = [&](const Json&) {
        if (--left == 0) throw Error(ErrorKind::Interrupted, "stopped by the test");
      };
      EXPECT_THROW(run(op, name, settings, stopping), Error);
      Quiet again;
      const Json result = run(op, name, settings, again);
      for (const char* file : {"model.safetensors", "adapter/adapter_model.safetensors"}) {
        EXPECT_EQ(read_text(folder_ / name / file), read_text(folder_ / op / file)) << file;
      }
    }
  }
}

TEST_F(LoraStage, WhatDoesNotGoTogetherIsRefused) {
  Quiet events;
  EXPECT_THROW(run("train", "a", {{"tokens", "1k"}, {"lora", 4}, {"freeze", "embed"}}, events), Error);
  EXPECT_THROW(run("train", "b", {{"tokens", "1k"}, {"lora", 4}, {"init", "random"}}, events), Error);
  EXPECT_THROW(run("train", "c", {{"tokens", "1k"}, {"keep", "best"}, {"objective", "classify"}}, events), Error);
}

}  // namespace
}  // namespace slmc::distillation
