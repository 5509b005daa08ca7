// Which tokens stay: counts against a loop, the expected counts against the min-max formula of isotonic regression, the order, the plan.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/file.h"
#include "core/rng.h"
#include "ir/plan.h"
#include "ir/vocabulary.h"
#include "pruning/vocab/keep.h"
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

}  // namespace
}  // namespace slmc::pruning
