// The training stages on the tiny trained model: they learn, they recover, they resume to the bit, and their gradients are right.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>
#include <nlohmann/json.hpp>

#include "core/cancel.h"
#include "core/error.h"
#include "core/file.h"
#include "core/rng.h"
#include "distillation/distill_task.h"
#include "distillation/ops.h"
#include "engine/evaluate.h"
#include "engine/train/next_token.h"
#include "engine/train/parameters.h"
#include "engine/train/training.h"
#include "engine/train/window_batches.h"
#include "ir/plan.h"
#include "ir/tokens.h"
#include "ir/write.h"
#include "test_folder.h"
#include "train_testing.h"

namespace slmc::distillation {
namespace {

using engine::Batch;
using engine::budget_of;
using engine::Loaded;
using slmc::testing::relative_difference;

const std::string kRoot = SLMC_SOURCE_DIR;
const std::string kTiny = kRoot + "/tests/data/tiny-trained";

struct Recorder : stage::Events {
  std::vector<Json> all;
  std::function<void()> each = [] {};
  void emit(const Json& event) override {
    all.push_back(event);
    each();
  }
};

data::WindowSource texts(const std::string& file, std::int64_t seq) {
  const ir::Model model = ir::load(kTiny);
  const Json spec = {{"files", {kRoot + "/configs/data/" + file}}, {"seq", seq}};
  return data::WindowSource(data::data_spec_from_json(spec, "test", "data"), *model.tokenizer());
}

Batch batch_of(std::int64_t windows, std::int64_t seq, bool documents) {
  return engine::WindowBatches(texts("calib.jsonl", seq), documents, at::kCPU).at(0, windows);
}

double held_out_nll(const ir::Model& model) {
  Loaded loaded = engine::load(model, at::kFloat, at::kCPU);
  Recorder events;
  const at::Tensor windows = engine::WindowBatches(texts("heldout.jsonl", 128), false, at::kCPU).at(0, 48).ids;
  return engine::score_windows(loaded, windows, events).mean();
}

ir::Model without_block(const ir::Model& model, std::int64_t gone) {
  ir::Plan plan(model);
  for (std::int64_t i = 0; i < model.blocks(); ++i) {
    if (i != gone) plan.take["block"].push_back(i);
  }
  return ir::apply(plan, model);
}

TEST(TinyTrained, PredictsTextFarBetterThanChance) {
  const double nll = held_out_nll(ir::load(kTiny));
  EXPECT_LT(nll, 5.0);                                     // chance is ln 2003 = 7.6
  EXPECT_GT(nll, std::log(20.0));                          // and it has not seen these texts
}

// All gradients of one batch, by name.
std::map<std::string, at::Tensor> gradients(Loaded& model, const std::vector<Batch>& parts, bool recompute) {
  const auto groups = engine::parameter_groups(model.weights, 0.1, {});
  engine::NextToken task(model, recompute);
  double counted = 0;
  for (const Batch& part : parts) counted += static_cast<double>(task.count(part));
  for (const Batch& part : parts) task.add_gradients(part, 1.0 / counted, 0);
  std::map<std::string, at::Tensor> out;
  for (const auto& group : groups) {
    for (const engine::Parameter& p : group.parameters) {
      out[p.name] = p.value.grad();
      at::Tensor(p.value).mutable_grad() = at::Tensor();
    }
  }
  return out;
}

Batch part_of(const Batch& all, std::int64_t first, std::int64_t windows) {
  return {all.ids.narrow(0, first, windows), all.document.narrow(0, first, windows)};
}

TEST(NextTokenTask, FusedFp32GradientsEqualFp64) {
  for (const bool documents : {false, true}) {
    Loaded fast = engine::load(ir::load(kTiny), at::kFloat, at::kCPU, engine::Storage::Owned);
    Loaded exact = engine::load(ir::load(kTiny), at::kDouble, at::kCPU, engine::Storage::Owned);
    const Batch batch = batch_of(3, 100, documents);
    const auto got = gradients(fast, {batch}, false), want = gradients(exact, {batch}, false);
    ASSERT_EQ(got.size(), want.size());
    for (const auto& [name, g] : want) EXPECT_LE(relative_difference(got.at(name), g), 2e-5) << name;
  }
}

TEST(NextTokenTask, OneTimesEightEqualsEightTimesOneWithRaggedLengths) {
  Loaded model = engine::load(ir::load(kTiny), at::kFloat, at::kCPU, engine::Storage::Owned);
  Batch batch = batch_of(8, 64, true);
  for (std::int64_t w = 0; w < 8; ++w) {                   // window w holds documents of w + 1 tokens: the first one predicts nothing
    for (std::int64_t t = 0; t < 64; ++t) batch.document[w][t] = t / (w + 1);
  }
  EXPECT_EQ(engine::predictions(part_of(batch, 0, 1)), 0);
  EXPECT_EQ(engine::predictions(part_of(batch, 1, 1)), 32);
  const auto whole = gradients(model, {batch}, false);
  std::vector<Batch> parts;
  for (std::int64_t i = 0; i < 8; ++i) parts.push_back(part_of(batch, i, 1));
  const auto summed = gradients(model, parts, false);
  for (const auto& [name, g] : whole) EXPECT_LE(relative_difference(summed.at(name), g), 1e-6) << name;
}

TEST(NextTokenTask, RecomputationGivesTheSameBits) {
  Loaded model = engine::load(ir::load(kTiny), at::kFloat, at::kCPU, engine::Storage::Owned);
  const Batch batch = batch_of(2, 64, true);
  const auto plain = gradients(model, {batch}, false), recomputed = gradients(model, {batch}, true);
  for (const auto& [name, g] : plain) EXPECT_TRUE(recomputed.at(name).equal(g)) << name;
}

TEST(Distill, StudentEqualToTeacherHasNothingToLearn) {
  Loaded student = engine::load(ir::load(kTiny), at::kFloat, at::kCPU, engine::Storage::Owned);
  Loaded teacher = engine::load(ir::load(kTiny), at::kFloat, at::kCPU);
  engine::parameter_groups(student.weights, 0, {});
  Distill task(student, teacher, {1.0, 1.0}, false);
  const Batch batch = batch_of(2, 64, true);
  const auto sums = task.add_gradients(batch, 1.0 / static_cast<double>(task.count(batch)), 0);
  EXPECT_LE(sums[0] / static_cast<double>(task.count(batch)), 1e-7);
  EXPECT_GT(sums[2], 100);                                 // its cross-entropy is measured all the same
  for (const auto& [name, w] : student.weights.all()) {
    if (w.grad().defined()) {
      EXPECT_LE(w.grad().abs().max().item<float>(), 1e-7) << name;
    }
  }
}

// Largest norm of a difference over the norm of what it should be, over all trained tensors.
double worst(Loaded& got, Loaded& want) {
  double most = 0;
  for (const auto& [name, w] : want.weights.all()) {
    if (!w.grad().defined()) continue;
    const at::Tensor g = got.weights.tensor(name).grad().to(at::kDouble);
    most = std::max(most, g.sub(w.grad()).norm().item<double>() / w.grad().norm().item<double>());
  }
  return most;
}

// The oracle holds all logits of both models in fp64 and writes the loss out; everything else is left to autograd.
TEST(Distill, GradientsOfEveryWeightEqualAutogradOfTheDefinition) {
  const ir::Model whole = ir::load(kTiny), cut = without_block(whole, 2);
  const Batch batch = batch_of(3, 64, true);
  const ForwardKlSettings settings{2.0, 0.75};
  Loaded teacher = engine::load(whole, at::kDouble, at::kCPU), exact = engine::load(cut, at::kDouble, at::kCPU, engine::Storage::Owned);
  engine::parameter_groups(exact.weights, 0, {});
  const auto logits_of = [&](Loaded& model) {
    engine::Pass pass;
    pass.document = batch.document;
    return engine::logits(model.arch, model.weights, engine::hidden_states(model.arch, model.weights, batch.ids, pass)).flatten(0, 1);
  };
  const at::Tensor target = engine::next_tokens(batch).flatten(), rows = target.ge(0).nonzero().squeeze(1);
  const at::Tensor p = logits_of(teacher).detach().index_select(0, rows).div(settings.temperature).softmax(1);
  const at::Tensor z = logits_of(exact).index_select(0, rows), log_q = z.div(settings.temperature).log_softmax(1);
  const at::Tensor kl = p.mul(p.log().sub(log_q)).sum().mul(settings.temperature * settings.temperature);
  const at::Tensor ce = z.log_softmax(1).gather(1, target.index_select(0, rows).unsqueeze(1)).sum().neg();
  const double n = static_cast<double>(rows.numel());
  kl.mul(settings.kl_weight).add(ce.mul(1 - settings.kl_weight)).div(n).backward();

  for (const auto& [type, tolerance] : {std::pair{at::kDouble, 1e-11}, {at::kFloat, 2e-6}}) {
    SCOPED_TRACE(type == at::kDouble ? "fp64" : "fp32");
    Loaded student = engine::load(cut, type, at::kCPU, engine::Storage::Owned), other = engine::load(whole, type, at::kCPU);
    engine::parameter_groups(student.weights, 0, {});
    Distill task(student, other, settings, false);
    const auto sums = task.add_gradients(batch, 1 / n, 0);
    EXPECT_NEAR(sums[1], kl.item<double>(), tolerance * kl.item<double>());
    EXPECT_NEAR(sums[2], ce.item<double>(), tolerance * ce.item<double>());
    EXPECT_LE(worst(student, exact), tolerance);
  }
}

TEST(Distill, OneTimesEightEqualsEightTimesOneWithRaggedLengths) {
  const ir::Model whole = ir::load(kTiny), cut = without_block(whole, 1);
  Batch batch = batch_of(8, 48, true);
  for (std::int64_t w = 0; w < 8; ++w) {
    for (std::int64_t t = 0; t < 48; ++t) batch.document[w][t] = t / (3 * w + 1);
  }
  const double n = static_cast<double>(engine::predictions(batch));
  std::vector<Loaded> students;
  for (const std::int64_t micro : {8, 1, 3}) {
    Loaded teacher = engine::load(whole, at::kFloat, at::kCPU);
    Loaded& student = students.emplace_back(engine::load(cut, at::kFloat, at::kCPU, engine::Storage::Owned));
    engine::parameter_groups(student.weights, 0, {});
    Distill task(student, teacher, {1.0, 0.9}, false);
    for (std::int64_t i = 0; i < 8; i += micro) task.add_gradients(part_of(batch, i, std::min<std::int64_t>(micro, 8 - i)), 1 / n, 0);
  }
  for (const int i : {1, 2}) {
    for (const auto& [name, w] : students[0].weights.all()) {
      if (w.grad().defined()) {
        EXPECT_LE(relative_difference(students[i].weights.tensor(name).grad(), w.grad()), 1e-6) << name;
      }
    }
  }
}

TEST(Distill, ForeignVocabularyIsRefused) {
  EXPECT_NO_THROW(ir::require_same_tokens(ir::load(kTiny), ir::load(kTiny)));
  const ir::Model other = ir::load(kRoot + "/tests/data/tiny/llama");
  EXPECT_THROW(ir::require_same_tokens(ir::load(kTiny), other), Error);
}

TEST(Parameters, DecayOnlyMatricesAndFreezeByPattern) {
  Loaded model = engine::load(ir::load(kTiny), at::kFloat, at::kCPU, engine::Storage::Owned);
  const auto groups = engine::parameter_groups(model.weights, 0.5, {"block.0.*", "embed"});
  for (const engine::Parameter& p : groups[0].parameters) EXPECT_EQ(p.value.dim(), 2) << p.name;
  for (const engine::Parameter& p : groups[1].parameters) EXPECT_EQ(p.value.dim(), 1) << p.name;
  EXPECT_EQ(groups[0].weight_decay, 0.5);
  EXPECT_EQ(groups[1].weight_decay, 0.0);
  EXPECT_EQ(groups[0].parameters.size(), 3u * 7);
  EXPECT_FALSE(model.weights.tensor("embed").requires_grad());
  Loaded again = engine::load(ir::load(kTiny), at::kFloat, at::kCPU, engine::Storage::Owned);
  EXPECT_THROW(engine::parameter_groups(again.weights, 0, {"blok.*"}), Error);
  EXPECT_THROW(engine::parameter_groups(again.weights, 0, {"*"}), Error);
}

TEST(Budget, CountsWindowsAndUpdates) {
  EXPECT_EQ(budget_of(60'000, -1, 512).batch, 2);          // 60,000 / 64 tokens, in windows
  EXPECT_EQ(budget_of(60'000, -1, 512).steps, 59);
  EXPECT_EQ(budget_of(10'000'000, -1, 512).batch, 16);     // 8192 tokens at most
  EXPECT_EQ(budget_of(1, -1, 512).steps, 1);
  EXPECT_EQ(budget_of(100'000, 4096, 128).batch, 32);
  EXPECT_GE(budget_of(100'000, 4096, 128).tokens, 100'000);
}

// ---- whole jobs ----

class TrainingStages : public FolderTest {
 protected:
  void SetUp() override {
    FolderTest::SetUp();
    at::set_num_threads(1);
    add_ops(ops_);
    ir::write_hf(without_block(ir::load(kTiny), 2), folder_ / "student", DType::F32);
  }
  void TearDown() override {
    clear_cancel();
    FolderTest::TearDown();
  }

  Json run(const std::string& op, const std::string& name, Json settings, Recorder& events, const std::string& model = "student") {
    if (op == "distill") settings["teacher"] = kTiny;
    Json json = {{"slmc_job", 1}, {"op", op}, {"model", (folder_ / model).string()}, {"out", (folder_ / name).string()}, {"seed", 3}, {"threads", 1},
                 {"gemm", "mkl"}, {"resume", (folder_ / (name + "-resume")).string()}, {"settings", std::move(settings)},
                 {"models", op == "distill" ? Json{{"teacher", kTiny}} : Json::object()}};
    json["data"] = {{"train", {{"files", {kRoot + "/configs/data/calib.jsonl"}}, {"seq", 64}}}};
    const stage::Job job = stage::job_from_json(json, ops_.at(op).info->settings);
    engine::OpContext context(job, events, at::kCPU);
    return ops_.at(op).run(context);
  }
  std::string weights(const std::string& name) const { return read_text(folder_ / name / "model.safetensors"); }

  engine::Ops ops_;
};

TEST_F(TrainingStages, DistillationRecoversWhatACutCost) {
  const double whole = held_out_nll(ir::load(kTiny)), cut = held_out_nll(ir::load((folder_ / "student").string()));
  EXPECT_GT(cut, whole + 0.1);                             // pruning hurts
  Recorder events;
  const Json result = run("distill", "out", {{"tokens", "40k"}, {"lr", 1e-3}}, events);
  const double healed = held_out_nll(ir::load((folder_ / "out").string()));
  EXPECT_LT(healed, cut - 0.5 * (cut - whole));            // at least half of it comes back
  EXPECT_LT(result["curve"].back()["kl"].get<double>(), 0.9 * result["curve"].front()["kl"].get<double>());
  EXPECT_EQ(result["resolved"]["lr"], 1e-3);
  EXPECT_GE(result["tokens"].get<std::int64_t>(), 40'000);
}

TEST_F(TrainingStages, TrainingFromScratchLearns) {
  Recorder events;
  std::filesystem::create_directories(folder_ / "start");
  for (const char* name : {"config.json", "tokenizer.json"}) std::filesystem::copy(kTiny + "/" + name, folder_ / "start" / name);
  const Json result = run("train", "out", {{"init", "random"}, {"tokens", "30k"}, {"lr", 5e-3}}, events, "start");
  EXPECT_NEAR(result["curve"].front()["loss"].get<double>(), std::log(2003.0), 0.2);         // it starts at chance
  EXPECT_LT(held_out_nll(ir::load((folder_ / "out").string())), 7.0);
}

TEST_F(TrainingStages, StoppedAtRandomPlacesAndResumedGivesTheSameBits) {
  const Json settings = {{"tokens", "6k"}, {"batch_tokens", "512"}, {"micro_batch", 3}, {"lr", 1e-3}, {"save_every", 4}};
  Recorder quiet;
  run("distill", "whole", settings, quiet);
  const Rng rng(11);
  for (std::uint64_t i = 0; i < 5; ++i) {
    const std::string name = "cut" + std::to_string(i);
    const std::int64_t stop = 1 + rng.below(11, i);
    Recorder events;
    std::int64_t seen = 0;
    events.each = [&] {
      if (++seen == stop) request_cancel(2);
    };
    EXPECT_THROW(run("distill", name, settings, events), Error) << stop;
    clear_cancel();
    Recorder again;
    const Json result = run("distill", name, settings, again);
    EXPECT_EQ(result["resumed"], true);
    EXPECT_TRUE(weights(name) == weights("whole")) << "stopped after update " << stop;
  }
}

TEST_F(TrainingStages, KilledAtRandomPlacesAndResumedGivesTheSameBits) {
  const Json settings = {{"tokens", "6k"}, {"batch_tokens", "512"}, {"micro_batch", 3}, {"lr", 1e-3}, {"save_every", 2}};
  for (const std::string op : {"distill", "train"}) {
    SCOPED_TRACE(op);
    Recorder quiet;
    run(op, op, settings, quiet);
    const auto events_of_all = static_cast<std::int64_t>(quiet.all.size());
    ASSERT_GT(events_of_all, 11);
    const Rng rng(23);
    int resumed = 0;
    for (std::uint64_t i = 0; i < 5; ++i) {
      const std::string name = op + "-killed-" + std::to_string(i);
      const std::int64_t last = 1 + rng.below(events_of_all - 1, i);
      const pid_t child = ::fork();
      if (child == 0) {
        Recorder events;
        std::int64_t seen = 0;
        events.each = [&] {
          if (++seen == last) ::raise(SIGKILL);
        };
        run(op, name, settings, events);
        ::_exit(0);
      }
      int status = 0;
      ::waitpid(child, &status, 0);
      ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "event " << last << " of " << events_of_all;
      Recorder again;
      resumed += run(op, name, settings, again)["resumed"].get<bool>();
      EXPECT_TRUE(weights(name) == weights(op)) << "killed at event " << last << " of " << events_of_all;
    }
    EXPECT_GE(resumed, 3);
  }
}

TEST_F(TrainingStages, AnotherRunsCheckpointIsRefused) {
  Recorder events;
  run("distill", "a", {{"tokens", "2k"}, {"save_every", 1}}, events);
  std::filesystem::rename(folder_ / "a-resume", folder_ / "b-resume");
  try {
    run("distill", "b", {{"tokens", "2k"}, {"save_every", 1}, {"kl_weight", 0.5}}, events);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::Usage);
    EXPECT_NE(e.message().find("'settings'"), std::string::npos) << e.message();
  }
}

}  // namespace
}  // namespace slmc::distillation
