// Which tokens stay: counts against a loop, counts by rank against the min-max formula of isotonic regression, counts that the model expects
// against its logits position by position, the order, the plan.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/remainder.h>

#include "core/error.h"
#include "core/file.h"
#include "core/rng.h"
#include "engine/decoder.h"
#include "ir/plan.h"
#include "ir/vocabulary.h"
#include "pruning/vocab/expected.h"
#include "pruning/vocab/keep.h"
#include "methods_testing.h"
#include "test_folder.h"

namespace slmc::pruning {
namespace {

namespace fs = std::filesystem;

// max over j >= i of min over a <= i of the mean of counts[a .. j], for a falling function (Robertson et al. 1988, theorem 1.4.4, turned round).
std::vector<double> by_definition(const std::vector<double>& counts) {
  std::vector<double> out;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    double best = -1;
    for (std::size_t j = i; j < counts.size(); ++j) {
      double least = 1e300;
      for (std::size_t a = 0; a <= i; ++a) {
        double sum = 0;
        for (std::size_t k = a; k <= j; ++k) sum += counts[k];
        least = std::min(least, sum / static_cast<double>(j - a + 1));
      }
      best = std::max(best, least);
    }
    out.push_back(best);
  }
  return out;
}

TEST(KeepTokens, ExpectedCountsEqualTheMinMaxFormula) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const Rng rng(seed);
    std::vector<double> counts(1 + seed * 2);
    for (std::size_t i = 0; i < counts.size(); ++i) counts[i] = static_cast<double>(rng.below(8, i)) * (seed % 2 ? 1.0 : 10.0 / static_cast<double>(i + 1));
    const std::vector<double> got = expected_by_rank(counts), want = by_definition(counts);
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-12) << seed << " " << i;
  }
}

TEST(KeepTokens, UnseenTokensFollowTheirRankAndSeenOnesGoBefore) {
  EXPECT_EQ(by_count({0, 0, 5, 0, 1, 0}), (std::vector<std::int64_t>{2, 0, 1, 4, 3, 5}));        // pools: 5/3 each, then 1/2 each, then 0
  EXPECT_EQ(by_count({0, 0, 0}), (std::vector<std::int64_t>{0, 1, 2}));
}

class KeepTokensOfText : public FolderTest {};

TEST_F(KeepTokensOfText, EveryDocumentIsCountedOnce) {
  const text::Tokenizer t = text::Tokenizer::from_file(fs::path(SLMC_SOURCE_DIR) / "tests/data/tokenizers/smollm.json");
  write_text(folder_ / "a.jsonl", "{\"text\": \"a cat\"}\n{\"text\": \"a dog, a cat\"}\n");
  write_text(folder_ / "b.txt", "a cat");
  data::DataSpec spec;
  spec.domains = {{.name = "a", .files = {folder_ / "a.jsonl"}}, {.name = "b", .files = {folder_ / "b.txt"}, .weight = 7}};
  spec.samples = 1;
  std::vector<double> want(static_cast<std::size_t>(t.size()) + 3);
  for (const char* text : {"a cat", "a dog, a cat", "a cat"})
    for (const std::int32_t id : t.encode(text)) want[static_cast<std::size_t>(id)] += 1;
  EXPECT_EQ(token_counts(t, spec, t.size() + 3), want);
}

// The tokens of a text all stay when there is room, and the plan is legal: checked where the plan is (ir_vocabulary_test).
TEST_F(KeepTokensOfText, TokensOfTheTextStayWhenThereIsRoom) {
  fs::copy(fs::path(SLMC_SOURCE_DIR) / "tests/data/tiny-trained", folder_ / "m");
  const ir::Model model = ir::load((folder_ / "m").string());
  const text::Tokenizer& t = *model.tokenizer();
  write_text(folder_ / "t.txt", "The river ran under the bridge, and a boat lay there.");
  data::DataSpec spec;
  spec.domains = {{.name = "t", .files = {folder_ / "t.txt"}}};
  const std::vector<double> counts = token_counts(t, spec, model.sizes().vocab);
  const std::int64_t size = (model.sizes().vocab + 512) / 2;
  const std::vector<std::int64_t> kept = ir::closed_vocabulary(model, by_count(counts), size);
  EXPECT_EQ(static_cast<std::int64_t>(kept.size()), size);
  ir::Plan plan(model);
  plan.take["vocab"] = kept;
  ASSERT_TRUE(ir::check(plan, model).ok());
  const ir::Model cut = ir::apply(plan, model);
  const auto pieces = [](const text::Tokenizer& tokenizer) {
    std::vector<std::string> out;
    for (const std::int32_t id : tokenizer.encode("The river ran under the bridge, and a boat lay there.")) out.push_back(tokenizer.piece(id));
    return out;
  };
  EXPECT_EQ(pieces(*cut.tokenizer()), pieces(t));
}

// Ten windows are more than are in memory together, 70 positions more than rows are.
TEST(KeepTokensByTheModel, ExpectedCountsAreSumsOfProbabilitiesAndOfWhatIsThere) {
  const ir::Model model = ir::load((fs::path(SLMC_SOURCE_DIR) / "tests/data/tiny-trained").string());
  const std::int64_t vocab = model.sizes().vocab, n = 10, seq = 70;
  const at::Tensor windows = at::remainder(at::arange(n * seq, at::kLong) * 7919, vocab).reshape({n, seq});
  std::vector<double> want(static_cast<std::size_t>(vocab));
  engine::Loaded loaded = engine::load(model, at::kFloat, at::kCPU);
  const at::Tensor logits = engine::logits(loaded.arch, loaded.weights, engine::hidden_states(loaded.arch, loaded.weights, windows)).contiguous();
  for (std::int64_t row = 0; row < n * seq; ++row) {
    const float* z = logits.const_data_ptr<float>() + row * vocab;
    const double most = *std::max_element(z, z + vocab);
    double sum = 0;
    for (std::int64_t v = 0; v < vocab; ++v) sum += std::exp(z[v] - most);
    for (std::int64_t v = 0; v < vocab; ++v) want[static_cast<std::size_t>(v)] += std::exp(z[v] - most) / sum;
    want[static_cast<std::size_t>(windows.const_data_ptr<std::int64_t>()[row])] += 1;
  }
  testing_methods::SilentEvents events;
  const std::vector<double> got = expected_counts(model, windows, at::kCPU, events);
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t v = 0; v < want.size(); ++v) ASSERT_NEAR(got[v], want[v], 1e-5 * want[v] + 1e-9) << v;
  const int before = at::get_num_threads();
  at::set_num_threads(before == 1 ? 2 : 1);
  EXPECT_EQ(expected_counts(model, windows, at::kCPU, events), got);
  at::set_num_threads(before);
}

TEST(KeepTokensByTheModel, WorthFallsAndEqualOnesKeepTheirOrder) { EXPECT_EQ(by_worth({1, 3, 1, 0.5, 3}), (std::vector<std::int64_t>{1, 4, 0, 2, 3})); }

}  // namespace
}  // namespace slmc::pruning
