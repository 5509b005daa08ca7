// Merged key/value groups: exact where groups are equal, in every family that can hold fewer of them; means by a loop elsewhere.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "core/error.h"
#include "engine/decoder.h"
#include "engine/head.h"
#include "engine/tensors.h"
#include "methods_testing.h"
#include "pruning/width/merge.h"
#include "pruning/width/narrow.h"

namespace slmc::pruning {
namespace {

using testing_methods::random_model;
using testing_methods::random_windows;
using testing_methods::SilentEvents;

at::Tensor logits_of(const ir::Model& model, const at::Tensor& ids) {
  const at::NoGradGuard no_grad;
  engine::Loaded m = engine::load(model, at::kDouble, at::kCPU, engine::Storage::Owned);
  return engine::logits(m.arch, m.weights, engine::hidden_states(m.arch, m.weights, ids));
}

// Each group twice, one behind the other.
ir::Model twins(const ir::Model& model) {
  ir::Plan plan(model);
  for (std::int64_t b = 0; b < model.blocks(); ++b) {
    for (std::int64_t g = 0; g < model.sizes().blocks[static_cast<std::size_t>(b)].kv; ++g) {
      for (int twice = 0; twice < 2; ++twice) plan.take["block." + std::to_string(b) + ".kv"].push_back(g);
    }
  }
  return ir::apply(plan, model);
}

TEST(Merge, EqualGroupsBecomeOneWithoutAnyChangeInEveryFamily) {
  std::set<std::string> families;
  for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(SLMC_SOURCE_DIR) / "tests/data/tiny")) {
    if (!entry.is_directory()) continue;
    const ir::Model model = ir::load(entry.path().string());
    const std::int64_t groups = model.sizes().blocks.front().kv;
    const ir::Model twice = twins(model);
    ir::Plan plan(twice);
    merge_groups(plan, twice, groups);
    const ir::Model merged = ir::apply(plan, twice);
    EXPECT_EQ(merged.sizes().blocks.front().kv, groups) << entry.path();
    EXPECT_EQ(merged.sizes().blocks.front().q, 2 * model.sizes().blocks.front().q) << entry.path();
    const at::Tensor ids = random_windows(model, 2, 9, 5);
    EXPECT_LE((logits_of(merged, ids) - logits_of(twice, ids)).abs().max().item<double>(), 1e-10) << entry.path();
    // Families whose every head has keys of its own can't say it, and are refused by name of the axis.
    const ir::Verdict verdict = ir::check(plan, twice);
    const bool shares = model.family() != "gpt2" && model.family() != "gpt_neox" && model.family() != "opt";
    const bool heads_fill = shares && !verdict.fits("hf") && verdict.cannot.at("hf").front().axis_or_tensor == "hidden";     // twice the heads do not
    EXPECT_EQ(verdict.fits("hf") || heads_fill, shares) << entry.path();
    if (!shares) {
      EXPECT_FALSE(verdict.cannot.at("hf").front().axis_or_tensor.empty()) << entry.path();
    }
    families.insert(model.family());
  }
  EXPECT_GE(families.size(), 6u);
}

TEST(Merge, KeysAndValuesAreMeansAndAllHeadsStay) {
  const ir::Model model = random_model({.hidden = 16, .blocks = 2, .kv = 4, .q = 2, .head = 4, .ffn = 32});
  ir::Plan plan(model);
  plan.take["block.1.ffn"] = {0, 5, 7};
  merge_groups(plan, model, 2);
  const ir::Model merged = ir::apply(plan, model);
  EXPECT_EQ(merged.sizes().blocks[1].ffn, 3);
  for (const char* part : {"q", "o"}) {
    const std::string name = std::string("block.1.attn.") + part;
    EXPECT_EQ(merged.read(name).to_floats(), model.read(name).to_floats()) << part;
  }
  for (const char* part : {"k", "v"}) {
    const std::string name = std::string("block.0.attn.") + part;
    const std::vector<float> was = model.read(name).to_floats(), is = merged.read(name).to_floats();
    ASSERT_EQ(is.size() * 2, was.size());
    const std::size_t group = 4 * 16;               // entries of one group
    for (std::size_t i = 0; i < is.size(); ++i) {
      const std::size_t first = i / group * 2 * group + i % group;
      EXPECT_EQ(is[i], static_cast<float>((static_cast<double>(was[first]) + was[first + group]) / 2)) << part;
    }
  }
}

TEST(Merge, HeadsThatWereCutInTheSamePlanAreThoseThatStay) {
  const ir::Model model = random_model({.hidden = 16, .blocks = 1, .kv = 2, .q = 3, .head = 4, .ffn = 32});
  ir::Plan cut(model);
  cut.take["block.0.kv.0.q"] = {0, 2};
  cut.take["block.0.kv.1.q"] = {1, 2};
  ir::Plan both = cut;
  merge_groups(both, model, 1);
  const ir::Model narrow = ir::apply(cut, model), merged = ir::apply(both, model);
  EXPECT_EQ(merged.sizes().blocks[0].q, 4);
  EXPECT_EQ(merged.read("block.0.attn.o").to_floats(), narrow.read("block.0.attn.o").to_floats());
}

TEST(Merge, GroupsThatDoNotDivideAreRefusedWithTheNumbersThatDo) {
  const ir::Model model = random_model({.blocks = 1, .kv = 6, .q = 1});
  try {
    require_mergeable(model.sizes(), 4);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.text(), "error: the number of key/value groups to merge 6 into must divide it, but is 4\nhint: possible: 1, 2, 3");
  }
  EXPECT_NO_THROW(require_mergeable(model.sizes(), 3));
  EXPECT_NO_THROW(require_mergeable(model.sizes(), 8));          // nothing to merge
}

TEST(Merge, TheSequentialRefitFitsWhatReadsTheMergedHeads) {
  const ir::Model model = random_model({.hidden = 32, .blocks = 2, .kv = 2, .q = 2, .ffn = 32});
  SilentEvents events;
  const Narrowed n = narrow(model, random_windows(model, 48, 24, 1), {.repair = Repair::Sequential, .merge = 1}, events);
  ASSERT_EQ(n.sequence.size(), 4u);                              // and ffn.down, which takes up what attn.o leaves
  for (const RefittedMap& m : n.sequence) {
    EXPECT_TRUE(m.name.ends_with(".attn.o") || m.name.ends_with(".ffn.down")) << m.name;
    if (m.name.ends_with(".attn.o")) {
      EXPECT_LT(m.refitted, m.cut) << m.name;
    }
  }
  EXPECT_EQ(ir::apply(n.plan, model).sizes().blocks[0].kv, 1);
}

}  // namespace
}  // namespace slmc::pruning
