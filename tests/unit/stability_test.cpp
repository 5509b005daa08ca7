// Decisions on resampled windows: the draws, and that statistics kept window by window give what measuring the drawn windows gives.
#include <ATen/ops/cat.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "methods_testing.h"
#include "pruning/resample.h"
#include "pruning/width/narrow.h"
#include "pruning/width/stability.h"

namespace slmc::pruning {
namespace {

using testing_methods::random_model;
using testing_methods::random_windows;
using testing_methods::SilentEvents;

TEST(Resample, DrawsAsManyWindowsAsThereAreAndIsPure) {
  std::vector<double> mean(20);
  std::int64_t absent = 0;
  for (std::int64_t k = 0; k < 500; ++k) {
    const std::vector<std::int64_t> counts = resampled(20, 3, k);
    EXPECT_EQ(counts, resampled(20, 3, k));
    EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), std::int64_t{0}), 20);
    for (std::size_t w = 0; w < 20; ++w) mean[w] += static_cast<double>(counts[w]) / 500, absent += counts[w] == 0;
  }
  for (const double m : mean) EXPECT_NEAR(m, 1, 0.25);                                    // sd of a mean: 0.044
  EXPECT_NEAR(static_cast<double>(absent) / 10000, std::pow(0.95, 20), 0.02);             // a window stays out with (1 - 1/n)^n
  EXPECT_NE(resampled(20, 3, 0), resampled(20, 4, 0));
  EXPECT_DOUBLE_EQ(resampled_mean({1, 2, 6}, {1, 1, 1}), 3);
  EXPECT_DOUBLE_EQ(resampled_mean({1, 2, std::nan("")}, {1, 2, 0}), 5.0 / 3);
}

TEST(Resample, Jaccard) {
  EXPECT_EQ(jaccard({1, 2, 3}, {1, 2, 3}), 1);
  EXPECT_EQ(jaccard({1, 2, 3}, {3, 4, 5}), 0.2);
  EXPECT_EQ(jaccard({1}, {2}), 0);
  EXPECT_EQ(jaccard({}, {}), 1);
}

std::vector<std::int64_t> others(const std::vector<std::int64_t>& kept, std::int64_t n) {
  std::vector<std::int64_t> out;
  for (std::int64_t i = 0; i < n; ++i)
    if (std::find(kept.begin(), kept.end(), i) == kept.end()) out.push_back(i);
  return out;
}

// Against measuring each resample's windows anew.
TEST(Stability, EqualsPlansOfTheDrawnWindows) {
  const ir::Model model = random_model({.hidden = 32, .blocks = 2, .kv = 3, .q = 2, .ffn = 48});
  const at::Tensor windows = random_windows(model, 6, 8, 1);                 // five fit, one is held out
  for (const char* criterion : {"wanda", "flap", "minitron"}) {
    NarrowSettings settings{.widths = {.ffn = 24, .kv = 2, .heads = 1}, .criterion = criterion, .repair = Repair::None, .stability = 4, .seed = 9};
    if (std::string(criterion) == "minitron") settings.widths.hidden = 24;
    SilentEvents events;
    const Narrowed n = narrow(model, windows, settings, events);
    std::map<std::string, Agreement> want;
    for (std::int64_t k = 0; k < 4; ++k) {
      std::vector<at::Tensor> drawn;
      const std::vector<std::int64_t> counts = resampled(5, 9, k);
      for (std::int64_t w = 0; w < 5; ++w) drawn.insert(drawn.end(), static_cast<std::size_t>(counts[static_cast<std::size_t>(w)]), windows.narrow(0, w, 1));
      drawn.push_back(windows.narrow(0, 5, 1));
      NarrowSettings once = settings;
      once.stability = 0;
      const ir::Plan other = narrow(model, at::cat(drawn), once, events).plan;
      for (const auto& [axis, kept] : n.plan.take) {
        const std::int64_t size = model.sizes().of(axis);
        want[axis].kept += jaccard(kept, other.take.at(axis)) / 4;
        want[axis].removed += jaccard(others(kept, size), others(other.take.at(axis), size)) / 4;
      }
    }
    const Json& got = (*n.plan.why)["stability"];
    EXPECT_EQ(got.size(), want.size());
    bool hangs_on_the_windows = false;
    for (const auto& [axis, a] : want) {
      EXPECT_NEAR(got[axis]["kept"].get<double>(), a.kept, 1e-3) << criterion << " " << axis;
      EXPECT_NEAR(got[axis]["removed"].get<double>(), a.removed, 1e-3) << criterion << " " << axis;
      hangs_on_the_windows = hangs_on_the_windows || a.kept < 1;
    }
    EXPECT_TRUE(hangs_on_the_windows) << criterion;
    EXPECT_EQ((*n.stability)["resamples"], 4);
    EXPECT_NEAR((*n.stability)["ffn"]["kept"].get<double>(), (want["block.0.ffn"].kept + want["block.1.ffn"].kept) / 2, 1e-9);
  }
}

TEST(Stability, EqualWindowsAlwaysDecideTheSame) {
  const ir::Model model = random_model({.hidden = 32, .blocks = 2, .ffn = 48});
  const at::Tensor one = random_windows(model, 1, 8, 1);
  SilentEvents events;
  const Narrowed n = narrow(model, at::cat({one, one, one, one, one}), {.widths = {.ffn = 24}, .repair = Repair::None, .stability = 5}, events);
  EXPECT_EQ((*n.stability)["ffn"]["kept"], 1.0);
  EXPECT_EQ((*n.stability)["ffn"]["removed"], 1.0);
}

}  // namespace
}  // namespace slmc::pruning
