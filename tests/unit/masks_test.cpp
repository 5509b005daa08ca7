// Learned masks: the paper's numbers, the constraints against loops, cut = gated forward, the tiny model under them.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>

#include "core/cancel.h"
#include "core/error.h"
#include "core/file.h"
#include "core/rng.h"
#include "engine/tensors.h"
#include "io/safetensors.h"
#include "ir/cost.h"
#include "masks_testing.h"
#include "pruning/masks/hard_concrete.h"
#include "pruning/ops.h"
#include "pruning/width/narrow.h"
#include "test_folder.h"

namespace slmc::pruning {
namespace {

namespace hc = hard_concrete;
using namespace testing_masks;

at::Tensor doubles(const std::vector<double>& values) { return at::tensor(values, at::TensorOptions(at::kDouble)); }

std::vector<double> values(const at::Tensor& t) {
  const at::Tensor d = t.detach().to(at::kDouble).contiguous();
  return {d.const_data_ptr<double>(), d.const_data_ptr<double>() + d.numel()};
}

// ---- the distribution ----

// log alpha, P(z > 0), sigmoid(0.8 log alpha / T), the same after stretch and clip: T = 2/3, computed from the paper's formulas with six
// digits by hand.
TEST(HardConcrete, EqualsThePapersNumbers) {
  const double rows[4][4] = {{4.60517, 0.997982, 0.996035, 1}, {2.5, 0.983675, 0.952574, 1}, {0, 0.831822, 0.5, 0.5}, {-4.60517, 0.047130, 0.003965, 0}};
  for (const auto& [log_alpha, open, half, settled] : rows) {
    const at::Tensor a = doubles({log_alpha});
    EXPECT_NEAR(hc::open_probability(a).item<double>(), open, 1e-6);
    EXPECT_NEAR(1 / (1 + std::exp(-hc::kSettling * log_alpha / hc::kTemperature)), half, 1e-6);
    EXPECT_NEAR(hc::settled(a).item<double>(), settled, 1e-12);
  }
}

// How often a draw is above 0, exactly 1, and its mean, against the distribution function P(z <= x) = P(s <= (x - gamma) / (zeta - gamma))
// with P(s <= y) = sigmoid(T (ln y - ln(1 - y)) - log alpha) [Louizos et al., equations 9 and 11], integrated with 20,000 steps.
TEST(HardConcrete, DrawsFollowTheDistribution) {
  const std::int64_t n = 200'000;
  for (const double log_alpha : {-2.0, 0.0, 1.5, 4.6}) {
    const at::Tensor a = at::full({n}, log_alpha, at::TensorOptions(at::kDouble)), z = hc::draw(a, hc::noise(Rng(5, 3), a));
    const auto below = [&](double x) {
      const double y = (x - hc::kGamma) / (hc::kZeta - hc::kGamma);
      return 1 / (1 + std::exp(log_alpha - hc::kTemperature * (std::log(y) - std::log(1 - y))));
    };
    double mean = 0;
    for (int i = 0; i < 20'000; ++i) mean += (1 - below((i + 0.5) / 20'000)) / 20'000;
    const double tolerance = 4 * 0.5 / std::sqrt(static_cast<double>(n));
    EXPECT_NEAR(z.gt(0).sum().item<double>() / static_cast<double>(n), 1 - below(0), tolerance) << log_alpha;
    EXPECT_NEAR(z.eq(1).sum().item<double>() / static_cast<double>(n), 1 - below(1), tolerance) << log_alpha;
    EXPECT_NEAR(z.mean().item<double>(), mean, tolerance) << log_alpha;
    EXPECT_NEAR(hc::open_probability(doubles({log_alpha})).item<double>(), 1 - below(0), 1e-12);
  }
}

TEST(HardConcrete, GradientsEqualDifferences) {
  const std::vector<double> at = {-1.3, -0.2, 0.4, 1.1};
  const at::Tensor a = doubles(at).requires_grad_(), noise = doubles({0.3, -0.5, 0.1, -0.6});
  for (const bool draws : {true, false}) {
    const auto f = [&](const at::Tensor& x) { return draws ? hc::draw(x, noise) : hc::open_probability(x); };
    a.mutable_grad() = at::Tensor();
    f(a).sum().backward();
    const double h = 1e-5;
    const std::vector<double> up = values(f(doubles(at) + h)), down = values(f(doubles(at) - h)), got = values(a.grad());
    for (std::size_t i = 0; i < at.size(); ++i) EXPECT_NEAR(got[i], (up[i] - down[i]) / (2 * h), 1e-9);
  }
}

// ---- constraints ----

ir::Model small() { return testing_methods::random_model({.hidden = 12, .blocks = 3, .kv = 2, .q = 3, .head = 4, .ffn = 10}); }

// Masks of `model` with log alphas drawn from the seed.
Masks random_masks(const ir::Model& model, const Target& target, std::uint64_t seed, at::ScalarType type) {
  Masks masks(model.sizes(), target, seed, type, at::kCPU);
  const at::NoGradGuard no_grad;
  std::uint64_t n = 0;
  for (const Mask& m : masks.all()) {
    at::Tensor flat = m.log_alpha.view({-1});
    for (std::int64_t i = 0; i < flat.numel(); ++i) flat[i] = 2 * Rng(seed).normal(n++);
  }
  return masks;
}

TEST(Masks, OneForEachAxisThatBecomesSmaller) {
  const ir::Model model = small();
  const Masks all(model.sizes(), {8, 2, 1, 2, 4}, 0, at::kFloat, at::kCPU);
  EXPECT_EQ(all.kinds(), (std::vector<std::string>{"hidden", "blocks", "kv", "heads", "ffn"}));
  EXPECT_EQ(all.all().size(), 2u + 3 * 3);
  EXPECT_EQ(Masks(model.sizes(), {.hidden = 12, .ffn = 4}, 0, at::kFloat, at::kCPU).kinds(), (std::vector<std::string>{"ffn"}));
  EXPECT_THROW(Masks(model.sizes(), {.ffn = 10}, 0, at::kFloat, at::kCPU), Error);      // nothing would go
  EXPECT_THROW(Masks(model.sizes(), {.ffn = 11}, 0, at::kFloat, at::kCPU), Error);
  EXPECT_THROW(Masks(model.sizes(), {.heads = 6}, 0, at::kFloat, at::kCPU), Error);     // of a group, not of a block
}

TEST(Masks, PenaltyAndItsGradientsEqualTheLoops) {
  const ir::Model model = small();
  Masks masks = random_masks(model, {.kv = 1, .heads = 2, .ffn = 4}, 9, at::kDouble);
  {
    const at::NoGradGuard no_grad;
    std::uint64_t n = 500;
    for (const Mask& m : masks.all()) {
      for (at::Tensor t : {m.lambda, m.phi}) {
        at::Tensor flat = t.view({-1});
        for (std::int64_t i = 0; i < flat.numel(); ++i) flat[i] = Rng(1).normal(n++);
      }
    }
  }
  const double ramp = 0.4;
  masks.penalty(ramp).backward();
  const std::map<std::string, double> constraints = {{"kv", 3}, {"heads", 6}, {"ffn", 3}};
  double want = 0;
  for (const Mask& m : masks.all()) {
    const std::vector<double> a = values(m.log_alpha), lambda = values(m.lambda), phi = values(m.phi), da = values(m.log_alpha.grad()),
                              dl = values(m.lambda.grad()), dp = values(m.phi.grad());
    const std::size_t n = static_cast<std::size_t>(m.log_alpha.size(-1));
    const double t = ramp * (1 - static_cast<double>(m.keep) / static_cast<double>(n)), all = constraints.at(m.kind);
    for (std::size_t row = 0; row < lambda.size(); ++row) {
      double closed = 0;
      for (std::size_t i = 0; i < n; ++i) closed += 1 / (1 + std::exp(a[row * n + i] - 2.0 / 3 * std::log(0.1 / 1.1)));
      const double off = closed / static_cast<double>(n) - t;
      want += (lambda[row] * off + phi[row] * off * off) / all;
      EXPECT_NEAR(dl[row], -off / all, 1e-12) << m.gate;                 // ascent: the gradient that descent follows is turned round
      EXPECT_NEAR(dp[row], -off * off / all, 1e-12) << m.gate;
      for (std::size_t i = 0; i < n; ++i) {
        const double p = 1 / (1 + std::exp(a[row * n + i] - 2.0 / 3 * std::log(0.1 / 1.1)));
        EXPECT_NEAR(da[row * n + i], -(lambda[row] + 2 * phi[row] * off) / all * p * (1 - p) / static_cast<double>(n), 1e-12) << m.gate;
      }
    }
  }
  EXPECT_NEAR(masks.penalty(ramp).item<double>(), want, 1e-12);
}

TEST(Masks, NoiseIsAFunctionOfSeedGateAndStep) {
  const ir::Model model = small();
  const Target target{.hidden = 8, .ffn = 4};
  Masks a(model.sizes(), target, 1, at::kFloat, at::kCPU), b(model.sizes(), target, 1, at::kFloat, at::kCPU), c(model.sizes(), target, 2, at::kFloat, at::kCPU);
  for (const std::int64_t step : {0, 1, 7}) a.begin_step(step);
  b.begin_step(7), c.begin_step(7);
  for (std::size_t i = 0; i < a.all().size(); ++i) {
    EXPECT_TRUE(a.all()[i].noise.equal(b.all()[i].noise));
    EXPECT_FALSE(a.all()[i].noise.equal(c.all()[i].noise));
  }
  EXPECT_FALSE(a.all()[1].noise.equal(a.all()[2].noise));                // of two blocks
  b.begin_step(8);
  EXPECT_FALSE(a.all()[0].noise.equal(b.all()[0].noise));
}

// ---- cut = gated ----

at::Tensor logits_of(const ir::Model& model, at::ScalarType type, const at::Tensor& ids, const engine::Gates* gates) {
  engine::Loaded loaded = engine::load(model, type, at::kCPU);
  engine::Pass pass;
  pass.gates = gates;
  return engine::logits(loaded.arch, loaded.weights, engine::hidden_states(loaded.arch, loaded.weights, ids, pass), pass);
}

// Every kind alone and all together, in three seeds, on the tiny checkpoints of every family that can hold the shape.
TEST(Masks, ExportedLogitsEqualTheModelsUnderTheHardMasks) {
  int compared = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kRoot + "/tests/data/tiny")) {
    if (!entry.is_directory()) continue;
    const ir::Model model = ir::load(entry.path().string());
    const ir::BlockSizes b = model.sizes().blocks.front();
    const std::optional<std::int64_t> none, hidden = model.sizes().hidden - 2, blocks = model.blocks() - 1, kv = b.kv - 1, q = b.q - 1, ffn = b.ffn / 2;
    const at::Tensor ids = testing_methods::random_windows(model, 2, 12, 3);
    for (const Target& target : {Target{hidden, none, none, none, none}, Target{none, blocks, none, none, none}, Target{none, none, kv, none, none},
                                 Target{none, none, none, q, none}, Target{none, none, none, none, ffn}, Target{hidden, blocks, kv, q, ffn}}) {
      if ((target.kv && *target.kv < 1) || (target.heads && *target.heads < 1) || (target.blocks && *target.blocks < 1)) continue;
      for (const std::uint64_t seed : {1, 2, 3}) {
        SCOPED_TRACE(entry.path().filename().string() + " " + std::to_string(seed));
        const Masks masks = random_masks(model, target, seed, at::kDouble);
        const ir::Plan plan = masks.plan(model);
        ir::require_ok(ir::check(plan, model), "");
        const engine::Gates gates = masks.top();
        const ir::Model cut = ir::apply(plan, model);
        EXPECT_LE((logits_of(cut, at::kDouble, ids, nullptr) - logits_of(model, at::kDouble, ids, &gates)).abs().max().item<double>(), 1e-9);
        EXPECT_LE((logits_of(cut, at::kFloat, ids, nullptr) - logits_of(model, at::kFloat, ids, &gates)).abs().max().item<double>(), 1e-4);
        ++compared;
      }
    }
  }
  EXPECT_GE(compared, 90);
}

// ---- the task ----

TEST(Shear, OneTimesEightEqualsEightTimesOne) {
  const ir::Model model = ir::load(kTiny);
  const engine::Batch batch = texts({"calib.jsonl"}, 48, 0).at(0, 8);
  const double n = static_cast<double>(engine::predictions(batch));
  std::vector<std::map<std::string, at::Tensor>> found;
  std::vector<double> whole;
  for (const std::int64_t micro : {8, 1, 3}) {
    engine::Loaded loaded = engine::load(model, at::kDouble, at::kCPU, engine::Storage::Owned);
    const auto groups = engine::parameter_groups(loaded.weights, 0, {});
    Masks masks = random_masks(model, {64, 3, 1, 2, 128}, 4, at::kDouble);
    for (const Mask& m : masks.all()) m.lambda.detach().fill_(0.1);      // a block whose mask is drawn 0 has no other gradient
    Shear task(loaded, masks, 0.5, micro == 3);
    task.begin_step(3, 10);
    std::vector<double> sums(task.terms().size(), 0.0);
    for (std::int64_t i = 0; i < 8; i += micro) {
      const std::int64_t w = std::min<std::int64_t>(micro, 8 - i);
      const std::vector<double> part = task.add_gradients({batch.ids.narrow(0, i, w), batch.document.narrow(0, i, w)}, 1 / n, 0.3);
      for (std::size_t k = 0; k < part.size(); ++k) sums[k] += part[k];
    }
    std::map<std::string, at::Tensor>& gradients = found.emplace_back();
    for (const auto& [name, w] : loaded.weights.all()) {
      if (w.grad().defined()) gradients[name] = w.grad();
    }
    for (const Mask& m : masks.all()) {
      gradients[m.gate] = m.log_alpha.grad(), gradients[m.gate + ".lambda"] = m.lambda.grad(), gradients[m.gate + ".phi"] = m.phi.grad();
      EXPECT_GT(m.log_alpha.grad().abs().max().item<double>(), 0) << m.gate;
    }
    if (micro == 8) whole = sums;
    for (std::size_t k = 0; k < sums.size(); ++k) EXPECT_NEAR(sums[k], whole[k], 1e-9 * std::abs(whole[k]) + 1e-12) << task.terms()[k];
  }
  for (const auto& [name, g] : found[0]) {
    for (const int i : {1, 2}) EXPECT_LE((found[i].at(name) - g).abs().max().item<double>(), 1e-12 + 1e-9 * g.abs().max().item<double>()) << name;
  }
}

// ---- what comes out ----

// All kinds at once: the expected sizes end near their targets, and the cut has exactly the target shape.
TEST(Shear, MasksReachTheExactTargetOfEachKind) {
  at::set_num_threads(1);
  const ir::Model model = ir::load(kTiny);
  const Target target{64, 3, 1, 2, 96};
  const Sheared s = sheared(model, target, {.steps = 240, .batch = 2, .seq = 32, .rate = 1e-4});
  for (const std::string& kind : s.masks.kinds()) EXPECT_LE(state_of(s.masks, kind, 1).gap, kind == "hidden" || kind == "ffn" ? 6.0 : 1.0) << kind;
  const ir::Sizes& cut = s.cut.sizes();
  EXPECT_EQ(cut.hidden, 64);
  ASSERT_EQ(cut.blocks.size(), 3u);
  for (const ir::BlockSizes& b : cut.blocks) EXPECT_EQ(b, (ir::BlockSizes{.kv = 1, .q = 2, .freq = 8, .pass = 0, .vd = 16, .ffn = 96}));
  const at::Tensor ids = texts({"heldout.jsonl"}, 32, 0).at(0, 2).ids;
  const engine::Gates gates = s.masks.top();
  EXPECT_LE((logits_of(s.cut, at::kFloat, ids, nullptr) - logits_of(s.trained, at::kFloat, ids, &gates)).abs().max().item<double>(), 1e-4);
}

// ---- whole jobs ----

struct Recorder : stage::Events {
  std::vector<Json> all;
  std::function<void()> each = [] {};
  void emit(const Json& event) override {
    all.push_back(event);
    each();
  }
};

class ShearStage : public FolderTest {
 protected:
  void SetUp() override {
    FolderTest::SetUp();
    at::set_num_threads(1);
    add_shear(ops_);
  }
  void TearDown() override {
    clear_cancel();
    FolderTest::TearDown();
  }
  Json run(const std::string& name, Recorder& events, Json settings = {{"ffn", 128}, {"kv", 1}, {"tokens", "4k"}, {"batch_tokens", "256"}, {"micro_batch", 3},
                                                                       {"lr", 1e-3}, {"save_every", 3}}) {
    const Json json = {{"slmc_job", 1}, {"op", "shear"}, {"model", kTiny}, {"out", (folder_ / name).string()}, {"seed", 3}, {"threads", 1},
                       {"gemm", "mkl"}, {"resume", (folder_ / (name + "-resume")).string()}, {"settings", std::move(settings)},
                       {"data", {{"train", {{"files", {kRoot + "/configs/data/calib.jsonl"}}, {"seq", 32}}}}}};
    const stage::Job job = stage::job_from_json(json, ops_.at("shear").info->settings);
    engine::OpContext context(job, events, at::kCPU);
    return ops_.at("shear").run(context);
  }
  std::string bytes(const std::string& name) const {
    return read_text(folder_ / name / "model.safetensors") + read_text(folder_ / name / "masks/masks.safetensors");
  }
  engine::Ops ops_;
};

TEST_F(ShearStage, WritesTheTargetShapeItsMasksAndItsLog) {
  Recorder events;
  const Json result = run("out", events);
  const ir::Model cut = ir::load((folder_ / "out").string());
  for (const ir::BlockSizes& b : cut.sizes().blocks) EXPECT_EQ(b, (ir::BlockSizes{.kv = 1, .q = 3, .freq = 8, .pass = 0, .vd = 16, .ffn = 128}));
  const io::SafetensorsFile masks = io::SafetensorsFile::open(folder_ / "out/masks/masks.safetensors");
  EXPECT_EQ(masks.tensors().size(), 2u * 8);
  for (std::int64_t i = 0; i < 4; ++i) {                                 // what stayed is what the saved masks rank highest
    const std::string axis = "block." + std::to_string(i) + ".ffn";
    const at::Tensor log_alpha = engine::to_tensor(masks.read(axis));
    EXPECT_EQ(cut.origin().axes.at(axis), keep_best(log_alpha, 128)) << axis;
    EXPECT_TRUE(engine::to_tensor(masks.read(axis + ".z")).equal(hc::settled(log_alpha)));
  }
  for (const char* term : {"loss", "ce", "ffn.sparsity", "ffn.target", "ffn.lambda", "ffn.phi", "kv.sparsity"}) {
    EXPECT_TRUE(result["curve"].back().contains(term)) << term;
    EXPECT_TRUE(std::any_of(events.all.begin(), events.all.end(), [&](const Json& e) { return e["event"] == "progress" && e.contains(term); })) << term;
  }
  EXPECT_NEAR(result["curve"].back()["ffn.target"].get<double>(), 0.5, 1e-12);
  EXPECT_EQ(result["curve"].front()["ffn.lambda"], 0.0);                 // multipliers start at 0
  EXPECT_EQ(result["masks"]["ffn"]["keep"], 128);
  EXPECT_EQ(result["masks"]["kv"]["of"], 2);
}

// A run that ends at its event `last`: killed in a process of its own, or asked to stop.
template <typename Run>
void stop_at(std::int64_t last, bool kill, const Run& run) {
  std::int64_t seen = 0;
  Recorder events;
  events.each = [&] {
    if (++seen == last) kill ? static_cast<void>(::raise(SIGKILL)) : request_cancel(2);
  };
  if (!kill) {
    EXPECT_THROW(run(events), Error);
    return clear_cancel();
  }
  const pid_t child = ::fork();
  if (child == 0) run(events), ::_exit(0);
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

TEST_F(ShearStage, StoppedOrKilledAnywhereAndResumedGivesTheSameBits) {
  Recorder quiet;
  run("whole", quiet);
  const auto all = static_cast<std::int64_t>(quiet.all.size());
  ASSERT_GT(all, 16);
  const Rng rng(29);
  int resumed = 0;
  for (std::uint64_t i = 0; i < 6; ++i) {
    const bool kill = i % 2;
    const std::string name = "cut" + std::to_string(i);
    const std::int64_t last = kill ? 1 + rng.below(all - 1, i) : 1 + rng.below(15, i);
    SCOPED_TRACE((kill ? "killed at event " : "stopped after update ") + std::to_string(last));
    ASSERT_NO_FATAL_FAILURE(stop_at(last, kill, [&](Recorder& events) { run(name, events); }));
    Recorder again;
    resumed += run(name, again)["resumed"].get<bool>();
    EXPECT_TRUE(bytes(name) == bytes("whole"));
  }
  EXPECT_GE(resumed, 4);
}

// ---- domains that follow their losses ----

class DomainStage : public ShearStage {
 protected:
  void SetUp() override {
    ShearStage::SetUp();
    write_json(folder_ / "losses.json", {{"losses", {{"wiki", 4.0}, {"code", 1.0}, {"books", 4.6}}}});
  }
  Json dynamic(const std::string& name, Recorder& events, Json more = Json::object(), const char* mode = "doremi") {
    Json settings = {{"ffn", 128}, {"tokens", "4k"}, {"batch_tokens", "256"}, {"micro_batch", 3}, {"lr", 1e-3}, {"save_every", 3}, {"domains", mode},
                     {"domains_every", 4}, {"reference_losses", (folder_ / "losses.json").string()}};
    settings.update(more);
    Json models = Json::object();
    if (settings.contains("reference")) models["reference"] = settings["reference"], settings.erase("reference_losses");
    Json mix = Json::object(), valid = Json::object();
    for (const char* domain : {"wiki", "code", "books"}) {
      const std::string file = kRoot + "/configs/data/train/" + domain + ".jsonl";
      mix[domain] = {{"files", {file}}, {"skip_last", 4}};
      valid[domain] = {{"files", {file}}, {"only_last", 4}};
    }
    const Json json = {{"slmc_job", 1}, {"op", "shear"}, {"model", kTiny}, {"out", (folder_ / name).string()}, {"seed", 3}, {"threads", 1},
                       {"gemm", "mkl"}, {"resume", (folder_ / (name + "-resume")).string()}, {"settings", settings}, {"models", models},
                       {"data", {{"train", {{"mix", mix}, {"seq", 32}}}, {"valid", {{"mix", valid}, {"seq", 32}, {"samples", 3}}}}}};
    const stage::Job job = stage::job_from_json(json, ops_.at("shear").info->settings);
    engine::OpContext context(job, events, at::kCPU);
    return ops_.at("shear").run(context);
  }
};

TEST_F(DomainStage, WeightsFollowTheLossesByTheRuleAndAreKeptInTheResult) {
  Recorder events;
  const Json result = dynamic("out", events);
  const Json& history = result["domains"];
  ASSERT_EQ(history.size(), 4u);                                         // of updates 0, 4, 8, 12 of 16
  std::map<std::string, double> w = {{"wiki", 1.0 / 3}, {"code", 1.0 / 3}, {"books", 1.0 / 3}};
  const std::map<std::string, double> reference = {{"wiki", 4.0}, {"code", 1.0}, {"books", 4.6}};
  for (std::size_t i = 0; i < history.size(); ++i) {
    EXPECT_EQ(history[i]["step"], 4 * i);
    double sum = 0;
    for (auto& [name, weight] : w) weight *= std::exp(std::max(0.0, history[i]["losses"][name].get<double>() - reference.at(name))), sum += weight;
    for (auto& [name, weight] : w) {
      weight = (1 - 1e-4) * weight / sum + 1e-4 / 3;
      EXPECT_NEAR(history[i]["weights"][name].get<double>(), weight, 1e-12);
    }
  }
  EXPECT_GT(w["code"], 0.9);                                             // the one that is far behind takes over
  const std::vector<double> epochs = result["epochs"];                   // in the order of names: books, code, wiki
  EXPECT_GT(epochs[1], 2 * epochs[2]);
  EXPECT_TRUE(std::any_of(events.all.begin(), events.all.end(), [](const Json& e) { return e["event"] == "note" && e["text"].get<std::string>().starts_with("domains from update 5 on: "); }));
}

TEST_F(DomainStage, ASourceModelGivesTheReferences) {
  Recorder events;
  const Json result = dynamic("out", events, {{"reference", kTiny}});
  for (const auto& [name, loss] : result["references"].items()) EXPECT_NEAR(loss.get<double>(), result["domains"][0]["losses"][name].get<double>(), 2e-3) << name;
}

TEST_F(DomainStage, StoppedOrKilledAndResumedGivesTheSameBitsAndTheSameHistory) {
  Recorder quiet;
  const Json whole = dynamic("whole", quiet);
  const auto all = static_cast<std::int64_t>(quiet.all.size());
  for (const std::int64_t last : {3, 6, 10, 15}) {
    SCOPED_TRACE(last);
    const bool kill = last % 2;
    const std::string name = "cut" + std::to_string(last);
    ASSERT_LT(last, all);
    ASSERT_NO_FATAL_FAILURE(stop_at(last, kill, [&](Recorder& events) { dynamic(name, events); }));
    Recorder again;
    const Json result = dynamic(name, again);
    EXPECT_EQ(result["domains"], whole["domains"]);
    EXPECT_TRUE(bytes(name) == bytes("whole"));
  }
}

TEST_F(DomainStage, WhatIsMissingIsSaid) {
  Recorder events;
  EXPECT_THROW(dynamic("a", events, {{"reference", kTiny}, {"reference_losses", (folder_ / "losses.json").string()}, {"domains_every", 0}}), Error);
  EXPECT_THROW(dynamic("b", events, {{"domains_start", "model"}}), Error);              // its lineage has none
  write_json(folder_ / "losses.json", {{"losses", {{"wiki", 4.0}}}});
  EXPECT_THROW(dynamic("c", events), Error);
}

TEST_F(ShearStage, WrongTargetsAreRefusedBeforeWork) {
  Recorder events;
  EXPECT_THROW(run("a", events, {{"ffn", 300}, {"tokens", "1k"}}), Error);
  EXPECT_THROW(run("b", events, {{"ffn", 256}, {"tokens", "1k"}}), Error);
  EXPECT_THROW(run("c", events, {{"ffn", 128}, {"lr", 0}, {"tokens", "1k"}}), Error);
  EXPECT_TRUE(events.all.empty());
}

// ---- against magnitude ----

// The same shape after the same tokens at the paper's rate: masks for three fifths of them and plain training for the rest, beside a cut by
// magnitude and plain training for all.
TEST(Shear, BeatsMagnitudeAtTheSameShapeAndTokensInEachOfThreeSeeds) {
  at::set_num_threads(1);
  const ir::Model model = ir::load(kTiny);
  for (const std::uint64_t seed : {0, 1, 2}) {
    const Training all{.steps = 200, .batch = 4, .rate = 1e-4, .seed = seed};
    Training first = all, rest = all;
    first.steps = 120, rest.steps = 80, rest.first = first.steps * first.batch;
    const double masks = held_out_nll(trained(sheared(model, {.ffn = 64}, first).cut, rest));
    SilentEvents events;
    NarrowSettings how;
    how.widths.ffn = 64, how.criterion = "magnitude", how.repair = Repair::None;
    const double magnitude = held_out_nll(trained(ir::apply(narrow(model, {}, how, events).plan, model), all));
    EXPECT_LT(masks, magnitude - 0.15) << "seed " << seed;
    std::printf("seed %d: %.3f nats with masks, %.3f by magnitude\n", static_cast<int>(seed), masks, magnitude);
  }
}

// ---- counts of the paper ----

ir::Model shaped(std::int64_t hidden, std::int64_t blocks, std::int64_t heads, std::int64_t ffn) {
  return ir::shape_only({{"architectures", {"LlamaForCausalLM"}}, {"model_type", "llama"}, {"hidden_act", "silu"}, {"hidden_size", hidden},
                         {"intermediate_size", ffn}, {"num_hidden_layers", blocks}, {"num_attention_heads", heads}, {"num_key_value_heads", heads},
                         {"head_dim", 128}, {"vocab_size", 32000}, {"max_position_embeddings", 4096}, {"rms_norm_eps", 1e-5},
                         {"tie_word_embeddings", false}, {"rope_theta", 10000.0}, {"torch_dtype", "float16"}});
}

// The targets of the paper's table 1 from LLaMA2-7B; 370M is of its published code.
TEST(Shear, TargetsHaveThePapersParameters) {
  const ir::Model source = shaped(4096, 32, 32, 11008);
  EXPECT_EQ(ir::cost(source).parameters, 6'738'415'616);
  const struct {
    Target target;
    std::int64_t parameters;
  } rows[] = {{{2048, 24, 16, {}, 5504}, 1'345'423'360}, {{2560, {}, 20, {}, 6912}, 2'701'560'320}, {{1024, 24, 8, {}, 2816}, 373'867'520}};
  for (const auto& row : rows) {
    const Masks masks = random_masks(source, row.target, 6, at::kFloat);
    const ir::Plan plan = masks.plan(source);
    ir::require_ok(ir::check(plan, source), "hf");
    const ir::Model cut = ir::apply(plan, source);
    EXPECT_EQ(ir::cost(cut).parameters, row.parameters);
    EXPECT_EQ(cut.sizes(), shaped(*row.target.hidden, row.target.blocks.value_or(32), *row.target.kv, *row.target.ffn).sizes());
  }
}

}  // namespace
}  // namespace slmc::pruning
