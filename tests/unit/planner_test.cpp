// The planner: the knapsack against all combinations, costs against the models themselves, widths of a small trained model.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/rng.h"
#include "engine/stream.h"
#include "ir/cost.h"
#include "ir/target.h"
#include "ir/write.h"
#include "pruning/depth/judge.h"
#include "pruning/planner/allocate.h"
#include "pruning/planner/marginal.h"
#include "pruning/planner/per_layer.h"
#include "pruning/planner/shapes.h"
#include "methods_testing.h"
#include "test_folder.h"

namespace slmc::pruning {
namespace {

using ir::Measure;
using testing_methods::random_windows;
using testing_methods::SilentEvents;

// ---- the knapsack ----------------------------------------------------------------------------------------------------------------

struct Best {
  double loss = std::numeric_limits<double>::infinity();
  std::int64_t cost = 0;
};

// Every combination.
void try_all(const std::vector<std::vector<Option>>& blocks, std::size_t b, std::int64_t cost, double loss, std::int64_t most, Best& best) {
  if (b == blocks.size()) {
    if (cost <= most && (loss < best.loss || (loss == best.loss && cost < best.cost))) best = {loss, cost};
    return;
  }
  for (const Option& o : blocks[b]) try_all(blocks, b + 1, cost + o.cost, loss + o.loss, most, best);
}

TEST(Allocate, EqualsTheBestOfAllCombinations) {
  int feasible = 0, infeasible = 0;
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    Rng rng(seed);
    std::uint64_t at = 0;
    const auto draw = [&](std::uint64_t n) { return static_cast<std::int64_t>(rng.bits(at++) % n); };
    std::vector<std::vector<Option>> blocks(static_cast<std::size_t>(1 + draw(6)));
    std::int64_t all = 0;
    for (auto& options : blocks) {
      options.resize(static_cast<std::size_t>(1 + draw(5)));
      std::int64_t dearest = 0;
      for (Option& o : options) {
        o = {draw(100), draw(seed % 2 ? 1000 : 6), static_cast<double>(draw(64)) / 8};      // exact sums; losses need not fall with costs
        dearest = std::max(dearest, o.cost);
      }
      all += dearest;
    }
    const std::int64_t most = draw(static_cast<std::uint64_t>(all + 2));
    Best best;
    try_all(blocks, 0, 0, 0, most, best);
    const auto found = allocate(blocks, most);
    SCOPED_TRACE(seed);
    ASSERT_EQ(found.has_value(), std::isfinite(best.loss));
    (found ? feasible : infeasible)++;
    if (!found) continue;
    double loss = 0;
    std::int64_t cost = 0;
    for (std::size_t b = 0; b < blocks.size(); ++b) loss += blocks[b][(*found)[b]].loss, cost += blocks[b][(*found)[b]].cost;
    EXPECT_EQ(loss, best.loss);
    EXPECT_EQ(cost, best.cost);
  }
  EXPECT_GT(feasible, 150);
  EXPECT_GT(infeasible, 30);
}

TEST(Allocate, OfEqualLossesTheCheaper) {
  EXPECT_EQ(allocate({{{1, 5, 2}, {2, 3, 2}}, {{1, 1, 0}}}, 100), (std::vector<std::size_t>{1, 0}));
  EXPECT_EQ(allocate({{{1, 5, 2}}}, 4), std::nullopt);
  EXPECT_EQ(allocate({}, 0), std::vector<std::size_t>{});
}

// ---- costs -----------------------------------------------------------------------------------------------------------------------

std::string trained_folder() { return std::string(SLMC_SOURCE_DIR) + "/tests/data/tiny-trained"; }

ir::Sizes spread_sizes(const ir::Model& model, std::uint64_t seed) {
  ir::Sizes sizes = model.sizes();
  Rng rng(seed);
  std::uint64_t at = 0;
  for (ir::BlockSizes& b : sizes.blocks) {
    b.ffn = 1 + static_cast<std::int64_t>(rng.bits(at++) % static_cast<std::uint64_t>(b.ffn));
    b.kv = 1 + static_cast<std::int64_t>(rng.bits(at++) % static_cast<std::uint64_t>(b.kv));
  }
  return sizes;
}

ir::Meter with_table() {
  ir::Meter meter{.file_type = "q8_0", .latency = ir::LatencyTable{.rest = 0.25}};
  for (std::int64_t w = 1; w <= 4096; w *= 2) meter.latency->ffn[w] = 0.5 + 0.001 * static_cast<double>(w);
  for (std::int64_t kv = 1; kv <= 16; ++kv)
    for (std::int64_t q = 1; q <= 16; ++q) meter.latency->attention[{kv, q}] = 0.1 * static_cast<double>(kv) + 0.01 * static_cast<double>(q);
  return meter;
}

// What blocks add up to is what whole models cost, whatever their blocks are.
TEST(Target, BlockCostsAddUpToTheModels) {
  const ir::Model model = ir::load(trained_folder());
  const ir::Meter meter = with_table();
  for (const auto& [name, measure] : ir::target_settings()) {
    SCOPED_TRACE(name);
    if (measure == Measure::FileBytes) continue;               // below
    const auto rest = [&](const ir::Model& m) {
      std::int64_t left = ir::cost_in(measure, m, meter);
      for (const std::int64_t c : ir::cost_by_block(measure, m, meter)) left -= c;
      return left;
    };
    for (std::uint64_t seed = 0; seed < 5; ++seed) EXPECT_EQ(rest(ir::resized(model, spread_sizes(model, seed))), rest(model));
  }
}

class PlannerFolder : public FolderTest {};

// The forecast is the file's size to the byte; the last entries kept give the longest text of an origin.
TEST_F(PlannerFolder, FileBytesAreThoseOfTheFileThatIsWritten) {
  const ir::Model model = ir::load(trained_folder());
  for (std::uint64_t seed = 0; seed < 3; ++seed) {
    const ir::Model cut = ir::resized(model, spread_sizes(model, seed));
    const std::map<std::string, std::string> types = ir::gguf_types(cut, "q8_0");
    const std::filesystem::path file = folder_ / (std::to_string(seed) + ".gguf");
    ir::write_gguf(cut, file, {types.begin(), types.end()});
    EXPECT_EQ(ir::cost_in(Measure::FileBytes, cut, {.file_type = "q8_0"}), static_cast<std::int64_t>(std::filesystem::file_size(file)));
  }
}

TEST(Target, TheLargestWidthThatKeepsIt) {
  const ir::Model model = ir::load(trained_folder());
  const std::int64_t ffn = model.sizes().blocks[0].ffn, all = ir::cost(model).parameters;
  const std::vector<std::int64_t> legal = ir::legal_sizes(model, "ffn", 8, "hf");
  EXPECT_EQ(legal.front(), 8);
  EXPECT_EQ(legal.back(), ffn);
  const std::int64_t per_width = 3 * model.sizes().hidden * model.blocks();
  for (const std::int64_t wanted : {std::int64_t{8}, ffn / 2 / 8 * 8, ffn}) {
    const std::int64_t exact = all - per_width * (ffn - wanted);
    for (const std::int64_t slack : {std::int64_t{0}, std::int64_t{1}, per_width * 8 - 1}) {       // reached exactly, else the nearest below
      if (wanted == ffn && slack > 0) continue;
      const std::vector<ir::Target> targets = {ir::target_from("params", std::to_string(exact + slack), model, {})};
      EXPECT_EQ(ir::largest_size(model, model.sizes(), "ffn", legal, targets, {}), wanted);
    }
    const std::vector<ir::Target> below = {ir::target_from("params", std::to_string(exact - 1), model, {})};
    const auto size = ir::largest_size(model, model.sizes(), "ffn", legal, below, {});
    EXPECT_EQ(size.value_or(0), wanted == 8 ? 0 : *std::prev(std::lower_bound(legal.begin(), legal.end(), wanted)));
  }
  EXPECT_THROW(ir::refuse_targets(model, model.sizes(), {{"ffn", legal}}, {ir::target_from("params", "1", model, {})}, {}), Error);
}

TEST(Target, SharesAndValues) {
  const ir::Model model = ir::load(trained_folder());
  const ir::Meter meter = with_table();
  const std::int64_t all = ir::cost(model).parameters;
  EXPECT_EQ(ir::target_from("params", "-25%", model, meter).most, all * 3 / 4);
  EXPECT_EQ(ir::target_from("params", "75%", model, meter).most, all * 3 / 4);
  EXPECT_EQ(ir::target_from("params", "108M", model, meter).most, 108'000'000);
  EXPECT_EQ(ir::target_from("file_bytes", "80MB", model, meter).most, 80'000'000);
  EXPECT_EQ(ir::target_from("kv_bytes", "50%", model, meter).most, ir::cost(model).kv_bytes_per_token / 2);
  EXPECT_EQ(ir::target_from("latency", "5ms", model, meter).most, 5000);
  for (const char* bad : {"", "-120%", "0%", "101%", "much", "-5", "5 apples", "%", "0"}) {
    try {
      ir::target_from("params", bad, model, meter);
      ADD_FAILURE() << bad;
    } catch (const Error& e) {
      EXPECT_EQ(e.message(), std::string("the setting 'params' must be a share such as -20% or 80%, or a value such as 108M, but is ") + bad);
    }
  }
}

TEST_F(PlannerFolder, LatencyTables) {
  const auto table = [&](const std::string& text) {
    const std::filesystem::path file = folder_ / "t.csv";
    std::ofstream(file, std::ios::trunc) << text;
    return ir::read_latency_table(file);
  };
  const ir::Model model = ir::load(trained_folder());
  const ir::BlockSizes block = model.sizes().blocks[0];
  const std::string attention = "attn," + std::to_string(block.kv) + "x" + std::to_string(block.q) + ",0.5\n";
  const std::string text = "part,size,ms\nrest,,4\n" + attention + "ffn,0,0\r\nffn," + std::to_string(2 * block.ffn) + ",0.2\n";
  EXPECT_EQ(ir::cost_in(Measure::Latency, model, {.latency = table(text)}), 4000 + model.blocks() * (500 + 100));      // half way
  EXPECT_THROW(ir::cost_in(Measure::Latency, model, {.latency = table("part,size,ms\n" + attention + "ffn,1,1\n")}), Error);
  EXPECT_THROW(ir::cost_in(Measure::Latency, model, {.latency = table("part,size,ms\nffn,0,0\nffn,100000,1\n")}), Error);
  EXPECT_THROW(ir::cost_in(Measure::Latency, model, {}), Error);
  for (const char* bad : {"ffn,1,1\n", "part,size,ms\nffn,1\n", "part,size,ms\nffn,1,1,1\n", "part,size,ms\nffn,x,1\n", "part,size,ms\nffn,1,-1\n",
                          "part,size,ms\nffn,1,1\nffn,1,2\n", "part,size,ms\nattn,3,1\n", "part,size,ms\nrest,1,1\n", "part,size,ms\nffn,1,nan\n"}) {
    EXPECT_THROW(table(bad), Error) << bad;
  }
}

// ---- shapes ----------------------------------------------------------------------------------------------------------------------

TEST(Shapes, CurvesGoThroughWhatWasMeasured) {
  const Curve c = Curve::through(0.125, 0.02, 0.25, 0.08);
  EXPECT_NEAR(c.power, 2, 1e-12);
  EXPECT_NEAR(c.at(0.125), 0.02, 1e-12);
  EXPECT_NEAR(c.at(0.5), 0.32, 1e-12);
  EXPECT_EQ(c.at(0), 0);
  EXPECT_EQ(Curve::through(0.1, 1, 0.2, 0.5).power, 1);                 // noise: more removed never costs less
  EXPECT_NEAR(Curve::through(0.5, 0.3, 0.5, 0.3).at(0.5), 0.3, 1e-12);
}

TEST(Shapes, TheBestOfAllLegalOnes) {
  const ir::Model model = ir::load(trained_folder());
  const std::int64_t all = ir::cost(model).parameters;
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    Rng rng(seed);
    std::map<std::string, Axis> axes;
    std::uint64_t at = 0;
    for (const char* name : {"ffn", "kv", "q", "hidden"}) {
      std::vector<std::int64_t> legal = ir::legal_sizes(model, name, 64, "gguf");
      if (std::string(name) == "hidden") legal = {48, 72, 96};
      const double factor = 0.01 + static_cast<double>(rng.bits(at++) % 100) / 100;
      axes[name] = {legal, {.factor = factor, .power = 1 + static_cast<double>(rng.bits(at++) % 3)}};
    }
    const std::vector<ir::Target> targets = {ir::target_from("params", std::to_string(all * static_cast<std::int64_t>(60 + 10 * seed) / 100), model, {})};
    double least = std::numeric_limits<double>::infinity();
    for (const std::int64_t f : axes["ffn"].legal)
      for (const std::int64_t k : axes["kv"].legal)
        for (const std::int64_t q : axes["q"].legal)
          for (const std::int64_t h : axes["hidden"].legal) {
            ir::Sizes sizes = model.sizes();
            for (const auto& [axis, n] : {std::pair("ffn", f), {"kv", k}, {"q", q}, {"hidden", h}}) sizes = ir::at_most(sizes, axis, n);
            if (!ir::keeps(ir::resized(model, sizes), targets, {})) continue;
            least = std::min(least, axes["ffn"].loss(f) + axes["kv"].loss(k) + axes["q"].loss(q) + axes["hidden"].loss(h));
          }
    const std::map<std::string, std::int64_t> best = best_shape(model, model.sizes(), axes, targets, {});
    ASSERT_EQ(best.size(), 4u);
    double loss = 0;
    ir::Sizes sizes = model.sizes();
    for (const auto& [axis, n] : best) loss += axes[axis].loss(n), sizes = ir::at_most(sizes, axis, n);
    EXPECT_NEAR(loss, least, 1e-12);
    EXPECT_TRUE(ir::keeps(ir::resized(model, sizes), targets, {}));
  }
  EXPECT_TRUE(best_shape(model, model.sizes(), {{"kv", {ir::legal_sizes(model, "kv", 1, "hf"), {}}}},
                         {ir::target_from("params", "10%", model, {})}, {}).empty());
}

// ---- per layer -------------------------------------------------------------------------------------------------------------------

TEST(PerLayer, TheWidthsKeepTheTargetAndAreTheSameForAnyThreads) {
  const ir::Model model = ir::load(trained_folder());
  const at::Tensor windows = random_windows(model, 8, 32, 5);
  const std::int64_t ffn = model.sizes().blocks[0].ffn, align = 8, uniform = ffn * 3 / 4 / align * align;
  const ir::Model even = ir::resized(model, ir::at_most(model.sizes(), "ffn", uniform));
  const ir::Target target{Measure::Parameters, ir::cost(even).parameters, "test"};
  NarrowSettings how{.widths = {.ffn = uniform}};
  SilentEvents events;
  at::set_num_threads(1);
  const auto made = [&] { return per_layer(model, windows, how, align, target, {}, events); };
  const PerLayer one = made();
  ASSERT_EQ(one.tried.size(), static_cast<std::size_t>(model.blocks()));
  EXPECT_TRUE(std::isfinite(one.kl_per_layer)) << "the allocation was not uniform";
  EXPECT_EQ(one.widths.empty(), !(one.kl_per_layer < one.kl_uniform));
  const ir::Model result = ir::apply(one.narrowed.plan, model);
  EXPECT_LE(ir::cost(result).parameters, target.most);
  EXPECT_GT(ir::cost(result).parameters, target.most - 3 * model.sizes().hidden * align);            // the nearest below
  for (const ir::BlockSizes& b : result.sizes().blocks) EXPECT_TRUE(b.ffn % align == 0 || b.ffn == ffn);
  at::set_num_threads(3);
  const PerLayer three = made();
  at::set_num_threads(1);
  EXPECT_EQ(three.widths, one.widths);
  EXPECT_EQ(three.tried, one.tried);
  EXPECT_EQ(three.kl_per_layer, one.kl_per_layer);
  EXPECT_EQ(three.narrowed.plan.take, one.narrowed.plan.take);
}

// Widths are chosen behind the dense refit; the better ones are then repaired as `prune` repairs them when it is given them.
TEST(PerLayer, ASequenceIsRepairedAtTheWidthsThatWereChosen) {
  const ir::Model model = ir::load(trained_folder());
  const at::Tensor windows = random_windows(model, 8, 32, 5);
  const std::int64_t uniform = model.sizes().blocks[0].ffn * 3 / 4 / 8 * 8;
  const ir::Model even = ir::resized(model, ir::at_most(model.sizes(), "ffn", uniform));
  const ir::Target target{Measure::Parameters, ir::cost(even).parameters, "test"};
  NarrowSettings how{.widths = {.ffn = uniform}};
  SilentEvents events;
  const PerLayer dense = per_layer(model, windows, how, 8, target, {}, events);
  how.repair = Repair::Sequential;
  const PerLayer sequential = per_layer(model, windows, how, 8, target, {}, events);
  EXPECT_EQ(sequential.widths, dense.widths);
  EXPECT_EQ(sequential.kl_per_layer, dense.kl_per_layer);
  how.widths.ffn_of_block = dense.widths;
  const Narrowed direct = narrow(model, windows, how, events);
  ASSERT_FALSE(direct.sequence.empty());
  EXPECT_EQ(sequential.narrowed.plan.take, direct.plan.take);
  ASSERT_EQ(sequential.narrowed.sequence.size(), direct.sequence.size());
  for (std::size_t i = 0; i < direct.sequence.size(); ++i) EXPECT_EQ(sequential.narrowed.sequence[i].refitted, direct.sequence[i].refitted);
}

// A block alone between whole ones: the plan that cuts only this block, judged as a model of its own.
TEST(PerLayer, BlocksTriedAloneEqualModelsWithOneBlockCut) {
  const ir::Model model = ir::load(trained_folder());
  const at::Tensor windows = random_windows(model, 4, 48, 6);
  ir::Plan plan(model);
  for (std::int64_t b = 0; b < model.blocks(); ++b) plan.take["block." + std::to_string(b) + ".ffn"] = {0, 2, 4, 6, 8, 10, 12, 14};
  SilentEvents events;
  const std::vector<double> alone = block_costs(model, ir::apply(plan, model), windows, at::kCPU, events);
  engine::Loaded whole = engine::load(model, at::kFloat, at::kCPU);
  const Judge judge(whole.arch, whole.weights, windows, 4);
  for (std::int64_t b = 0; b < model.blocks(); ++b) {
    ir::Plan one(model);
    one.take["block." + std::to_string(b) + ".ffn"] = plan.take["block." + std::to_string(b) + ".ffn"];
    engine::Loaded cut = engine::load(ir::apply(one, model), at::kFloat, at::kCPU);
    at::Tensor x = judge.start().clone();
    engine::run_windows(cut.arch, cut.weights, x, 0, model.blocks());
    EXPECT_NEAR(alone[static_cast<std::size_t>(b)], judge.of(x).kl, 1e-6);
    EXPECT_GT(alone[static_cast<std::size_t>(b)], 0);
  }
}

}  // namespace
}  // namespace slmc::pruning
