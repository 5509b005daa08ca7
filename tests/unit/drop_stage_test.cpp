// The stage `drop` on the tiny trained model: what a search that judges after a repair finds, and how stable decisions are said to be.
#include <ATen/Parallel.h>
#include <ATen/ops/stack.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "depth_testing.h"
#include "engine/op.h"
#include "pruning/depth/stream_change.h"
#include "pruning/ops.h"
#include "pruning/resample.h"
#include "test_folder.h"

namespace slmc::pruning {
namespace {

using testing_methods::SilentEvents;

const std::string kRoot = SLMC_SOURCE_DIR, kTiny = kRoot + "/tests/data/tiny-trained";
constexpr std::uint64_t kSeed = 3;

class DropStage : public FolderTest {
 protected:
  void SetUp() override {
    FolderTest::SetUp();
    at::set_num_threads(1);
    add_drop(ops_);
  }
  stage::Job job(Json settings, int samples) {
    const Json calib = {{"files", {kRoot + "/configs/data/calib.jsonl"}}, {"seq", 64}, {"samples", samples}};
    const Json json = {{"slmc_job", 1}, {"op", "drop"}, {"model", kTiny}, {"out", (folder_ / "out").string()}, {"seed", kSeed}, {"threads", 1},
                       {"gemm", "mkl"}, {"settings", std::move(settings)}, {"models", Json::object()}, {"data", {{"calib", calib}}}};
    return stage::job_from_json(json, ops_.at("drop").info->settings);
  }
  Json run(Json settings, int samples) {
    const stage::Job parsed = job(std::move(settings), samples);
    engine::OpContext context(parsed, events_, at::kCPU);
    const Json result = ops_.at("drop").run(context);
    std::filesystem::remove_all(folder_ / "out");
    return result;
  }
  SilentEvents events_;
  engine::Ops ops_;
};

// Each block that can be healed, removed and healed in full on windows that the search has not judged by: none is better than what it takes.
TEST_F(DropStage, GreedyHealedTakesTheBlockThatHealsBest) {
  const int samples = 64;
  const Json found = run({{"layers", 1}, {"search", "greedy-healed"}, {"tries", 16}, {"repair_tries", 32}}, samples);
  std::map<std::int64_t, double> kl;
  for (std::int64_t i = 0; i < ir::load(kTiny).blocks(); ++i) kl[i] = run({{"list", {i}}}, samples)["held_out"]["kl_healed"];
  const auto best = std::min_element(kl.begin(), kl.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  EXPECT_EQ(found["removed"], Json::array({best->first}));
  EXPECT_EQ(found["held_out"]["kl_healed"], best->second);
  EXPECT_LT(best->second, 0.9 * std::max_element(kl.begin(), kl.end(), [](const auto& a, const auto& b) { return a.second < b.second; })->second);
}

// Against measuring each resample's windows anew.
TEST_F(DropStage, StabilityEqualsDecisionsOnTheDrawnWindows) {
  const std::int64_t times = 6, samples = 8, fit = 6;                  // a quarter is held out
  const Json got = run({{"layers", 2}, {"heal", "none"}, {"stability", times}}, samples);
  const stage::Job parsed = job({{"layers", 2}}, samples);
  engine::OpContext context(parsed, events_, at::kCPU);
  const at::Tensor windows = context.windows("calib");
  const ir::Model model = ir::load(kTiny);
  const engine::Arch arch = engine::arch_of(model);
  engine::PlainWeights weights(model, at::kFloat, at::kCPU);
  const std::vector<Unit> units = units_of(model.sizes(), "layer");
  const auto decided = [&](const at::Tensor& text) {
    std::set<std::int64_t> out;
    for (const Removal& r : lowest(units, means(influences(arch, weights, text, units)), Goal(model, "layer", 2))) out.insert(r.unit.block);
    return out;
  };
  const std::set<std::int64_t> chosen = decided(windows.narrow(0, 0, fit));
  EXPECT_EQ(got["removed"], Json(chosen));
  std::map<std::string, std::int64_t> again;
  double agreement = 0;
  for (std::int64_t k = 0; k < times; ++k) {
    std::vector<at::Tensor> drawn;
    const std::vector<std::int64_t> counts = resampled(fit, kSeed, k);
    for (std::int64_t w = 0; w < fit; ++w) drawn.insert(drawn.end(), static_cast<std::size_t>(counts[static_cast<std::size_t>(w)]), windows[w]);
    const std::set<std::int64_t> other = decided(at::stack(drawn));
    double both = 0;
    for (const std::int64_t block : other) ++again["block " + std::to_string(block)], both += static_cast<double>(chosen.count(block));
    agreement += both / (4 - both) / static_cast<double>(times);
  }
  EXPECT_EQ(got["stability"]["resamples"], times);
  EXPECT_EQ(got["stability"]["chosen"], Json(again));
  EXPECT_NEAR(got["stability"]["agreement"].get<double>(), agreement, 1e-12);
}

}  // namespace
}  // namespace slmc::pruning
