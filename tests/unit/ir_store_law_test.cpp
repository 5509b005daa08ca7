// The first law, for cut models: what a container says it can hold reads back as the same model; what it
// can't is refused before work. Seeded plans that leave all blocks alike, on every tiny checkpoint, through
// both containers.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "ir/plan.h"
#include "ir/state.h"
#include "ir/write.h"
#include "test_folder.h"
#include "tests/support/random_plans.h"

namespace slmc::ir {
namespace {

namespace fs = std::filesystem;

class StoreLaw : public FolderTest {
 protected:
  // Writes to one container and reads back.
  Model through(const Model& model, const std::string& container) const {
    if (container == "hf") {
      fs::remove_all(folder_ / "model");
      write_hf(model, folder_ / "model", std::nullopt);
      return load((folder_ / "model").string());
    }
    fs::remove(folder_ / "model.gguf");
    write_gguf(model, folder_ / "model.gguf", {{"*", "f32"}});
    return load((folder_ / "model.gguf").string());
  }
};

// attn_scale is a function of the head width in every container: a model with another one has its queries (or
// their norm's gain) scaled.
void expect_same_model(const Model& model, const Model& again) {
  EXPECT_EQ(again.sizes(), model.sizes());
  Decoder expected = model.decoder();
  expected.attn_scale = again.decoder().attn_scale;
  EXPECT_TRUE(again.decoder() == expected);
  const double fold = model.decoder().attn_scale / again.decoder().attn_scale;
  ASSERT_EQ(again.tensors().size(), model.tensors().size());
  for (const TensorSpec& spec : model.tensors()) {
    SCOPED_TRACE(spec.name);
    ASSERT_TRUE(again.has(spec.name));
    const io::TensorData a = model.read(spec.name), b = again.read(spec.name);
    ASSERT_EQ(a.shape, b.shape);
    if (spec.derived) {
      EXPECT_TRUE(std::equal(a.bytes.begin(), a.bytes.end(), b.bytes.begin(), b.bytes.end()));
      continue;
    }
    const bool normed = spec.block >= 0 && model.has("block." + std::to_string(spec.block) + ".attn.q_norm");
    const bool scaled = normed ? spec.name.ends_with(".attn.q_norm")
                               : spec.name.ends_with(".attn.q") || spec.name.ends_with(".attn.q.bias");
    const std::vector<float> x = a.to_floats(), y = b.to_floats();
    for (std::size_t i = 0; i < x.size(); ++i)
      if (scaled && fold != 1) {
        ASSERT_NEAR(y[i], x[i] * fold,
                    1e-6 * std::abs(x[i] * fold) + (spec.stored_dtype == "F32" ? 0 : 1e-2 * std::abs(x[i])));
      } else {
        ASSERT_EQ(x[i], y[i]);
      }
  }
}

TEST_F(StoreLaw, CutModelsReadBackOrAreRefused) {
  int held = 0, refused = 0;
  std::map<std::string, int> per_family;
  for (const auto& entry : fs::directory_iterator(fs::path(SLMC_SOURCE_DIR) / "tests/data/tiny")) {
    if (!entry.is_directory()) continue;
    const Model base = load(entry.path().string());
    const std::vector<std::string> kinds = testing::PlanMaker(base, 0).kinds();
    for (std::uint64_t seed = 0; seed < 50 + kinds.size(); ++seed) {    // fifty combinations, then each axis alone
      testing::PlanMaker maker(base, seed);
      Plan plan = seed < 50 ? maker.uniform() : maker.uniform({kinds[seed - 50]});
      if (seed < 50 && seed % 4 == 1)
        std::erase_if(plan.take,
                      [](const auto& t) { return t.first != "block" && !t.first.ends_with(".ffn"); });
      if (seed < 50 && seed % 4 == 2)
        std::erase_if(plan.take, [](const auto& t) {
          return t.first == "hidden" || t.first.ends_with(".vd") || t.first.ends_with(".freq") ||
                 t.first.ends_with(".pass");
        });
      const Verdict verdict = check(plan, base);
      ASSERT_TRUE(verdict.ok());
      const Model cut = apply(plan, base);
      for (const std::string container : {"hf", "gguf"}) {
        SCOPED_TRACE(entry.path().filename().string() + " " + container + " seed " + std::to_string(seed));
        if (!verdict.fits(container)) {
          ++refused;
          EXPECT_FALSE(verdict.cannot.at(container)[0].message.empty());
          const Names before = names();
          EXPECT_THROW(container == "hf" ? write_hf(cut, folder_ / "refused", std::nullopt)
                                         : write_gguf(cut, folder_ / "refused.gguf", {}),
                       Error);
          EXPECT_EQ(names(), before);
          continue;
        }
        ++held;
        ++per_family[base.family() + " " + container];
        const Model again = through(cut, container);
        expect_same_model(cut, again);
        EXPECT_EQ(again.origin().axes, cut.origin().axes);
        EXPECT_EQ(again.origin().blocks, cut.origin().blocks);
        if (!(cut.origin() == Origin{})) {
          EXPECT_EQ(again.origin().ancestor, base.content_hash());
        }
      }
    }
  }
  EXPECT_GT(held, 100);
  EXPECT_GT(refused, 60);
  EXPECT_EQ(per_family.size(), 13u);  // every family through both containers, opt through the one it has
}

// What GGUF says block by block: feed-forward widths, heads and groups, and blocks without attention.
TEST_F(StoreLaw, BlocksThatDifferReadBackFromGguf) {
  int apart = 0, alike = 0, refused = 0;
  for (const char* name : {"llama", "llama_tied"}) {
    const Model base = load((fs::path(SLMC_SOURCE_DIR) / "tests/data/tiny" / name).string());
    for (std::uint64_t seed = 0; seed < 60; ++seed) {
      SCOPED_TRACE(std::string(name) + " seed " + std::to_string(seed));
      Plan plan = testing::PlanMaker(base, seed).combined();
      std::erase_if(plan.take, [](const auto& t) {
        return t.first.ends_with(".freq") || t.first.ends_with(".pass") || t.first.ends_with(".vd");
      });
      const Verdict verdict = check(plan, base);
      ASSERT_TRUE(verdict.ok());
      if (!verdict.fits("gguf")) {
        ++refused;
        EXPECT_NE(verdict.cannot.at("gguf")[0].message.find("must have attention") == std::string::npos,
                  verdict.cannot.at("gguf")[0].message.find("no feed-forward part") == std::string::npos);
        continue;
      }
      const Model cut = apply(plan, base), again = through(cut, "gguf");
      expect_same_model(cut, again);
      const std::vector<BlockSizes>& blocks = cut.sizes().blocks;
      const bool differ = std::adjacent_find(blocks.begin(), blocks.end(), std::not_equal_to<>()) != blocks.end();
      EXPECT_EQ(again.config().at("general.architecture"), differ ? "deci" : "llama");
      EXPECT_EQ(again.family(), "llama");
      EXPECT_EQ(again.shape_hash(), cut.shape_hash());
      (differ ? apart : alike)++;
      // Cut from a file, back to blocks that are alike: under the usual name again.
      Plan even(again);
      std::int64_t least = blocks[0].ffn;
      for (const BlockSizes& b : blocks) least = std::min(least, b.ffn);
      std::vector<std::int64_t> first(static_cast<std::size_t>(least));
      for (std::size_t i = 0; i < first.size(); ++i) first[i] = static_cast<std::int64_t>(i);
      for (std::size_t b = 0; b < blocks.size(); ++b) even.take["block." + std::to_string(b) + ".ffn"] = first;
      const Model uniform = apply(even, again);
      if (!std::all_of(blocks.begin(), blocks.end(), [&](const BlockSizes& b) { return b.kv == blocks[0].kv && b.q == blocks[0].q; })) continue;
      const Model usual = through(uniform, "gguf");
      expect_same_model(uniform, usual);
      EXPECT_EQ(usual.config().at("general.architecture"), "llama");
      EXPECT_EQ(check(Plan(usual), usual).fits("hf"), usual.sizes().hidden % blocks[0].heads() == 0);
    }
  }
  EXPECT_GT(apart, 40);
  EXPECT_GT(alike, 5);
  EXPECT_GT(refused, 10);
}

// A list that does not fit the file around it is said by its key.
TEST_F(StoreLaw, ListsPerBlockMustFitTheirModel) {
  const Model base = load((fs::path(SLMC_SOURCE_DIR) / "tests/data/tiny/llama").string());
  Plan plan(base);
  plan.take["block.1.ffn"] = {0, 1, 2, 3};
  write_gguf(apply(plan, base), folder_ / "model.gguf", {{"*", "f32"}});
  const io::GgufFile file = io::GgufFile::open(folder_ / "model.gguf");
  const auto refusal = [&](std::vector<std::int64_t> ffn, const char* architecture) -> std::string {
    io::GgufMetadata metadata = file.metadata();
    for (auto& [key, value] : metadata) {
      if (key == "deci.feed_forward_length") value = io::GgufValue::i32s(ffn);
      if (key.starts_with("deci.")) key = architecture + key.substr(4);
    }
    io::set(metadata, "general.architecture", io::GgufValue::text(architecture));
    std::vector<io::GgufWriter::Entry> entries;
    for (const io::GgufTensor& t : file.tensors()) entries.push_back({t.name, t.type, t.shape});
    fs::remove(folder_ / "changed.gguf");
    io::GgufWriter writer(folder_ / "changed.gguf", metadata, entries);
    for (const io::GgufTensor& t : file.tensors()) writer.write(t.name, file.bytes(t));
    writer.finish();
    try {
      load((folder_ / "changed.gguf").string());
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::Model);
      return e.message();
    }
    return "";
  };
  EXPECT_EQ(refusal({44, 4}, "deci"), "");
  EXPECT_EQ(refusal({44}, "deci"), "'deci.feed_forward_length' must hold one entry per block, 2, but holds 1");
  EXPECT_EQ(refusal({}, "deci"), "the config must say 'ffn', but has no key for it");
  EXPECT_NE(refusal({44, -4}, "deci").find("'ffn' must be a whole number"), std::string::npos);
  EXPECT_NE(refusal({44, 5}, "deci").find("must be [5, 30] by the config"), std::string::npos);
  EXPECT_NE(refusal({44, 4}, "llama").find("'ffn' must be a whole number"), std::string::npos);
}

// A head that lost entries keeps its scale: containers derive it from the width, so it moves into the
// weights.
TEST_F(StoreLaw, ScaleMovesIntoQueriesOrTheirNorm) {
  for (const char* family : {"llama", "qwen3", "phi3"}) {
    SCOPED_TRACE(family);
    const Model base = load((fs::path(SLMC_SOURCE_DIR) / "tests/data/tiny" / family).string());
    Plan plan(base);
    plan.config = std::make_shared<const Json>(
        parse_json(R"({"attn_scale": 0.75, "window": null})", "test", ErrorKind::Recipe));
    const Model changed = apply(plan, base);
    const Model again = through(changed, "hf");
    EXPECT_NE(again.decoder().attn_scale, 0.75);
    expect_same_model(changed, again);
    const bool normed = base.has("block.0.attn.q_norm");
    EXPECT_EQ(again.read("block.0.attn.q").to_floats() == base.read("block.0.attn.q").to_floats(), normed);
  }
}

}  // namespace
}  // namespace slmc::ir
