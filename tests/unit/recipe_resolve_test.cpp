// lib/recipe/resolve and keys: a whole chain judged from headers; a key changes when, and only when,
// something that matters does.
#include "recipe/keys.h"
#include "recipe/lineage.h"
#include "recipe/run_state.h"
#include "tests/unit/error_text.h"
#include "tests/unit/recipe_run_fixture.h"

namespace slmc::recipe {
namespace {

class ResolveTest : public RunFixture {
 protected:
  std::string says(const std::string& stages, ErrorKind kind = ErrorKind::Recipe) const {
    const std::string text =
        "slmc: 1\nmodel: model\ndata: {calib: {files: [data/calib.jsonl], seq: 16}, train: {files: "
        "[data/train.jsonl], seq: 16}}\nstages:\n" +
        stages;
    try {
      resolve(decode(text, "r.yaml", registry()), environment());
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), kind);
      return error.text();
    }
    return "accepted";
  }
  // decode() takes relative paths from the recipe's place; these tests name it r.yaml for short texts, so
  // they run inside the folder.
  void SetUp() override {
    RunFixture::SetUp();
    before_ = fs::current_path();
    fs::current_path(root_);
  }
  void TearDown() override {
    fs::current_path(before_);
    RunFixture::TearDown();
  }
  fs::path before_;
};

// Llama by hand: embedding, head, final norm; per block q, k, v, o, two norms, three feed-forward matrices.
std::int64_t llama_parameters(std::int64_t vocab, std::int64_t hidden, std::int64_t blocks,
                              std::int64_t heads, std::int64_t kv, std::int64_t head, std::int64_t ffn) {
  return 2 * vocab * hidden + hidden +
         blocks * (2 * heads * head * hidden + 2 * kv * head * hidden + 2 * hidden + 3 * ffn * hidden);
}

TEST_F(ResolveTest, ShapesCostsAndContainersThroughAChain) {
  const Chain c = chain();
  EXPECT_EQ(c.input.parameters, llama_parameters(67, 30, 2, 6, 2, 10, 44));
  ASSERT_EQ(c.stages.size(), 4u);
  EXPECT_EQ(c.stages[0].out.parameters, llama_parameters(67, 30, 1, 6, 2, 10, 44));
  EXPECT_EQ(c.stages[1].out.parameters, llama_parameters(67, 30, 1, 6, 2, 10, 32));
  EXPECT_EQ(c.stages[2].out.parameters, c.stages[1].out.parameters);
  EXPECT_EQ(c.stages[0].out.kv_bytes_per_token, 1 * 2 * 10 * 2 * 2);
  EXPECT_EQ(c.stages[1].out.sizes->dump(),
            R"({"blocks":1,"hidden":30,"vocab":67,"ffn":32,"kv":2,"heads":6,"head_dim":10})");
  EXPECT_EQ(c.stages[0].out.container, "hf");
  EXPECT_EQ(c.stages[3].out.container, "gguf");
  EXPECT_FALSE(c.stages[2].out.quantized);
  EXPECT_TRUE(c.stages[3].out.quantized);
  EXPECT_TRUE(c.stages[1].out.exact);
  EXPECT_EQ(c.recipe.stages[1].settings.integer("align"), 32);  // auto: q8_0 has blocks of 32
  EXPECT_EQ(c.recipe.stages[1].settings.all().at("align").from, stage::Value::From::Auto);
  EXPECT_EQ(c.stages[2].models.at("teacher").key, c.model_key);
  EXPECT_EQ(c.stages[2].models.at("model").key, c.stages[1].key);
  EXPECT_EQ(c.stages[0].why, "no result yet");
  EXPECT_GT(c.disk_bytes, 0u);
  for (const StageForecast& s : c.stages) EXPECT_GT(s.peak_bytes, 0u);
  const Json json = to_json(c);
  EXPECT_EQ(json["name"], "demo");
  EXPECT_EQ(json["stages"][1]["settings"]["align"].dump(), R"({"value":32,"from":"auto"})");
  EXPECT_EQ(json["stages"][1]["settings"]["ffn"].dump(), R"({"value":32,"from":"recipe"})");
  EXPECT_EQ(json["stages"][1]["settings"]["refit"].dump(), R"({"value":true,"from":"default"})");
}

TEST_F(ResolveTest, GroupOfPackedWeightsFollowsFromTheRows) {
  // Rows of 30 and 60 and 44: no group of 8 or more divides 30.
  EXPECT_EQ(says("  - {id: q, use: quantize, with: {to: packed, group: 16}}\n"),
            "r.yaml:5:54: error: the group must divide every row, but 16 does not divide 30, 44, 60\n"
            "    5 |   - {id: q, use: quantize, with: {to: packed, group: 16}}\n"
            "      |                                                      ^~ take group: auto");
}

TEST_F(ResolveTest, SettingsThatTheShapesForbid) {
  EXPECT_EQ(says("  - {id: w, use: prune, with: {ffn: 64}}\n"),
            "r.yaml:5:37: error: the setting 'ffn' must be at most 44, what 'model' has, but is 64\n"
            "    5 |   - {id: w, use: prune, with: {ffn: 64}}\n"
            "      |                                     ^~");
  EXPECT_EQ(says("  - {id: w, use: prune, with: {ffn: 33}}\n"),
            "r.yaml:5:37: error: the setting 'ffn' must be a multiple of 32 (align), but is 33\n"
            "    5 |   - {id: w, use: prune, with: {ffn: 33}}\n"
            "      |                                     ^~ nearest: 32 and 64");
  EXPECT_EQ(says("  - {id: w, use: prune, with: {ffn: 33, align: 1}}\n"), "accepted");
  EXPECT_EQ(says("  - {id: d, use: drop, with: {layers: 2}}\n"),
            "r.yaml:5:39: error: the setting 'layers' must leave at least one of the 2 blocks of 'model', "
            "but is 2\n"
            "    5 |   - {id: d, use: drop, with: {layers: 2}}\n"
            "      |                                       ^");
  EXPECT_EQ(says("  - {id: a, use: drop, with: {layers: 1}}\n  - {id: d, use: drop, with: {list: [1]}}\n"),
            "r.yaml:6:37: error: the setting 'list' must name blocks from 0 to 0, but names 1\n"
            "    6 |   - {id: d, use: drop, with: {list: [1]}}\n"
            "      |                                     ^");
  EXPECT_EQ(says("  - {id: d, use: drop, with: {list: [0, 1]}}\n"),
            "r.yaml:5:37: error: the setting 'list' must leave at least one block, but names all\n"
            "    5 |   - {id: d, use: drop, with: {list: [0, 1]}}\n"
            "      |                                     ^");
}

TEST_F(ResolveTest, AStageThatCutsMustBeToldWhatOnce) {
  EXPECT_EQ(says("  - {id: d, use: drop}\n"),
            "r.yaml:5:10: error: the stage 'd' (drop) must have one of layers, list, but has none\n"
            "    5 |   - {id: d, use: drop}\n"
            "      |          ^");
  EXPECT_EQ(says("  - {id: d, use: drop, with: {layers: 1, list: [0]}}\n"),
            "r.yaml:5:48: error: the stage 'd' (drop) must have one of 'layers' and 'list', but has both\n"
            "    5 |   - {id: d, use: drop, with: {layers: 1, list: [0]}}\n"
            "      |                                                ^");
}

TEST_F(ResolveTest, AnEditDoesWhatItsPlanSays) {
  ir::Plan plan(ir::load((root_ / "model").string()));
  plan.take["block"] = {1};
  ir::write_plan(root_ / "edit", plan);
  const Chain c =
      chain("slmc: 1\nmodel: model\nstages: [{id: e, use: edit, with: {plan: edit/plan.json}}]\n");
  EXPECT_EQ(c.stages[0].out.parameters, llama_parameters(67, 30, 1, 6, 2, 10, 44));
  EXPECT_NE(
      says(
          "  - {id: d, use: drop, with: {layers: 1}}\n  - {id: e, use: edit, with: {plan: edit/plan.json}}\n")
          .find("r.yaml:6:"),
      std::string::npos);
}

TEST_F(ResolveTest, NoDenseStageAfterQuantization) {
  EXPECT_EQ(says("  - {id: q, use: quantize}\n  - {id: w, use: prune, with: {ffn: 32}}\n"),
            "r.yaml:6:10: error: the stage 'w' (prune) must come before quantization, but 'q' has quantized "
            "the weights\n"
            "    6 |   - {id: w, use: prune, with: {ffn: 32}}\n"
            "      |          ^ move it before 'q'");
  EXPECT_EQ(says("  - {id: q, use: quantize}\n  - {id: c, use: convert}\n"), "accepted");
}

TEST_F(ResolveTest, MissingFilesAreDataOrModelErrors) {
  fs::remove(root_ / "data/train.jsonl");
  EXPECT_EQ(says("  - {id: h, use: distill, with: {teacher: $model}}\n", ErrorKind::Data),
            "r.yaml:3:69: error: the file must exist, but '" + (root_ / "data/train.jsonl").string() +
                "' does not\n"
                "    3 | data: {calib: {files: [data/calib.jsonl], seq: 16}, train: {files: [data/train.jsonl], seq: 16}}\n"
                "      |                                                                     ^~~~~~~~~~~~~~~~ did you "
                "mean '" +
                (root_ / "data/calib.jsonl").string() + "'?");
}

TEST_F(ResolveTest, MissingTeachersAreModelErrorsAndMixturesTheRecipes) {
  EXPECT_EQ(says("  - {id: h, use: distill, with: {teacher: modell}}\n", ErrorKind::Model),
            "r.yaml:5:43: error: the model of 'teacher' must exist, but '" + (root_ / "modell").string() +
                "' does not\n"
                "    5 |   - {id: h, use: distill, with: {teacher: modell}}\n"
                "      |                                           ^~~~~~ did you mean '" +
                (root_ / "model").string() + "'?");
  EXPECT_NE(
      says("  - {id: h, use: distill, with: {teacher: modell}}\n  - {id: d, use: drop, with: {layers: 5}}\n")
          .find("must leave at least one"),
      std::string::npos);
}

// The trained tiny model with the ids of two letters exchanged.
void make_other_tokenizer(const fs::path& folder) {
  fs::copy(SLMC_SOURCE_DIR "/tests/data/tiny-trained", folder);
  Json tokenizer = Json::parse(read_text(folder / "tokenizer.json"));
  Json& vocab = tokenizer["model"]["vocab"];
  std::swap(vocab["a"], vocab["b"]);
  write_text(folder / "tokenizer.json", tokenizer.dump());
}

TEST_F(ResolveTest, ATeacherWithOtherTokensIsRefusedBeforeAnyWork) {
  fs::remove_all(root_ / "model");
  fs::copy(SLMC_SOURCE_DIR "/tests/data/tiny-trained", root_ / "model");
  make_other_tokenizer(root_ / "teacher");
  EXPECT_EQ(says("  - {id: h, use: distill, with: {teacher: $model}}\n"), "accepted");
  const std::string refused = says("  - {id: h, use: distill, with: {teacher: teacher}}\n");
  EXPECT_NE(refused.find("r.yaml:5:43: error: the teacher's token "), std::string::npos) << refused;
  EXPECT_NE(refused.find("the student's, but is 'b'"), std::string::npos) << refused;
}

TEST_F(ResolveTest, TheForecastCountsATeacherAtItsOwnSize) {
  const Chain whole = chain(), cut = chain(kRecipe, "work", {"heal.teacher=$depth"});
  const auto parameters = [](const Artefact& a) { return static_cast<std::uint64_t>(a.parameters); };
  // fp32 weights; nothing else differs.
  EXPECT_EQ(whole.stages[2].peak_bytes - cut.stages[2].peak_bytes, 4 * (parameters(whole.input) - parameters(whole.stages[0].out)));
  EXPECT_GT(whole.stages[2].seconds, cut.stages[2].seconds);
}

TEST_F(ResolveTest, WindowsLongerThanTheModelsContextAreRefused) {
  const auto refused = [&](const std::string& from, const std::string& to) {
    std::string text = kRecipe;
    text.replace(text.find(from), from.size(), to);
    try {
      chain(text);
    } catch (const Error& error) {
      EXPECT_EQ(exit_code(error.kind()), 2);
      return error.message();
    }
    return std::string("accepted");
  };
  // The tiny model was made for 64 tokens.
  EXPECT_EQ(refused("jsonl], seq: 16}\nstages", "jsonl], seq: 64}\nstages"), "accepted");
  EXPECT_EQ(refused("jsonl], seq: 16}\nstages", "jsonl], seq: 65}\nstages"),
            "the window of the data 'train' (seq) must be at most 64 tokens, the context of 'width', but is 65");
  EXPECT_EQ(refused("samples: 4, seq: 16", "samples: 4"),
            "the window of the data 'calib' (seq) must be at most 64 tokens, the context of 'model', but is 512");
  EXPECT_EQ(refused("window: 16", "window: 64"), "accepted");
  EXPECT_EQ(refused("window: 16", "window: 100"), "the window of the task 'test' must be at most 64 tokens, the context of 'model', but is 100");
}

TEST_F(ResolveTest, UnusedDataIsAWarning) {
  const Chain c = chain(
      "slmc: 1\nmodel: model\ndata: {calib: {files: [data/none.jsonl]}}\nstages: [{id: d, use: drop, with: "
      "{layers: 1}}]\n");
  EXPECT_EQ(c.warnings, std::vector<std::string>{"the data 'calib' is used by no stage"});
}

TEST_F(ResolveTest, WithoutFactsThereAreNoKeys) {
  Environment e = environment();
  e.facts.reset();
  const Chain c = resolve(decode(kRecipe, (root_ / "recipe.yaml").string(), registry()), e);
  EXPECT_EQ(c.stages[0].key, "");
  EXPECT_EQ(c.stages[1].out.parameters, llama_parameters(67, 30, 1, 6, 2, 10, 32));
}

// ---- keys ----

std::vector<std::string> keys(const Chain& c) {
  std::vector<std::string> out;
  for (const StageForecast& s : c.stages) out.push_back(s.key);
  return out;
}

// Which stages have another key: "depth width".
std::string changed(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  static const char* names[] = {"depth", "width", "heal", "small"};
  std::string out;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i] != b[i]) out += (out.empty() ? "" : " ") + std::string(names[i]);
  }
  return out;
}

TEST_F(ResolveTest, KeysChangeWithEachInputThatMattersFromThereOn) {
  const std::vector<std::string> base = keys(chain());
  EXPECT_EQ(changed(base, keys(chain())), "");
  const std::string all = "depth width heal small";
  const auto with = [&](const std::vector<std::string>& set) {
    return changed(base, keys(chain(kRecipe, "work", set)));
  };
  EXPECT_EQ(with({"depth.search=influence"}), all);
  EXPECT_EQ(with({"width.criterion=magnitude"}), "width heal small");
  EXPECT_EQ(with({"heal.tokens=2k"}), "heal small");
  EXPECT_EQ(with({"small.type=q4_0"}), "small");
  EXPECT_EQ(with({"seed=1"}), all);
  EXPECT_EQ(with({"data.calib.samples=5"}), all);  // greedy-kl calibrates
  EXPECT_EQ(with({"data.train.seq=32"}), "heal small");
  EXPECT_EQ(with({"heal.teacher=$depth"}), "heal small");
  EXPECT_EQ(with({"width.align=16"}), "width heal small");
  const auto facts = [&](const EngineFacts& f, int threads, int ranks) {
    Environment e = environment();
    e.facts = f;
    e.threads = threads;
    e.ranks = ranks;
    return changed(base, keys(resolve(decode(kRecipe, (root_ / "recipe.yaml").string(), registry()), e)));
  };
  EXPECT_EQ(facts({"2.12.0", "cpu", "onednn"}, 1, 1), all);
  EXPECT_EQ(facts({"2.13.0", "NVIDIA H100", "onednn"}, 1, 1), all);
  EXPECT_EQ(facts({"2.13.0", "cpu", "mkl"}, 1, 1), all);
  EXPECT_EQ(facts({"2.13.0", "cpu", "onednn"}, 2, 1), "heal small");  // only training depends on threads
  EXPECT_EQ(facts({"2.13.0", "cpu", "onednn"}, 1, 2), "heal small");
  write_text(root_ / "data/train.jsonl", "{\"text\": \"other\"}\n");
  EXPECT_EQ(changed(base, keys(chain())), "heal small");
  write_text(root_ / "data/calib.jsonl", "{\"text\": \"other\"}\n");
  EXPECT_EQ(changed(base, keys(chain())), all);
}

TEST_F(ResolveTest, KeysChangeWithTheModelsContent) {
  const std::vector<std::string> base = keys(chain());
  std::string weights = read_text(root_ / "model/model.safetensors");
  weights.back() = static_cast<char>(weights.back() ^ 1);
  write_text(root_ / "model/model.safetensors", weights);
  EXPECT_EQ(changed(base, keys(chain())), "depth width heal small");
}

TEST_F(ResolveTest, KeysDoNotChangeWithWhatDoesNotMatter) {
  const std::vector<std::string> base = keys(chain());
  std::string text = kRecipe;
  text.replace(text.find("name: demo"), 10, "name: other\nreport: r.html");
  text.replace(text.find("licence: CC0"), 12, "licence: MIT");
  text.replace(text.find("windows: 2"), 10, "windows: 3");
  EXPECT_EQ(changed(base, keys(chain(text))), "");
  EXPECT_EQ(changed(base, keys(chain(kRecipe, "elsewhere"))), "");
  EXPECT_EQ(changed(base, keys(chain(kRecipe, "work", {"width.refit=true"}))),
            "");  // the default, spelled out
  write_text(root_ / "model/lineage.json", "[]");
  write_text(root_ / "model/README.md", "notes");
  write_text(root_ / "model/.hidden", "x");
  EXPECT_EQ(changed(base, keys(chain())), "");
  fs::rename(root_ / "data", root_ / "moved");
  fs::rename(root_ / "model", root_ / "renamed");
  text = kRecipe;
  for (std::size_t at; (at = text.find("data/")) != std::string::npos;) text.replace(at, 5, "moved/");
  text.replace(text.find("model: model"), 12, "model: renamed");
  EXPECT_EQ(changed(base, keys(chain(text))), "");
}

TEST_F(ResolveTest, KeysChangeWithTheTemplatesThatAreUsedAndNoOthers) {
  const std::vector<std::string> base = keys(chain());
  fs::copy(SLMC_SOURCE_DIR "/configs/arch", root_ / "arch");
  const auto with_folder = [&] {
    Environment e = environment();
    e.templates = root_ / "arch";
    return resolve(decode(kRecipe, (root_ / "recipe.yaml").string(), registry()), e);
  };
  EXPECT_EQ(changed(base, keys(with_folder())), "");  // the same text as the one compiled in
  const auto edit = [&](const char* name) {
    Json json = Json::parse(read_text(root_ / "arch" / name));
    json["hf"]["harmless"].push_back("a_key_that_is_new");
    write_text(root_ / "arch" / name, json.dump(2));
  };
  edit("gpt2.json");
  EXPECT_EQ(changed(base, keys(with_folder())), "");
  const Chain before = with_folder();
  edit("llama.json");
  const Chain after = with_folder();
  EXPECT_EQ(changed(base, keys(after)), "depth width heal small");
  EXPECT_NE(eval_key(before, before.model_key), eval_key(after, after.model_key));
}

TEST_F(ResolveTest, PathSettingsCountByContent) {
  write_text(root_ / "plan.json", "{}");
  const std::string text =
      "slmc: 1\nmodel: model\nstages: [{id: q, use: quantize, with: {plan: plan.json}}]\n";
  const std::vector<std::string> base = keys(chain(text));
  EXPECT_EQ(keys(chain(text)), base);
  write_text(root_ / "plan.json", "{ }");
  EXPECT_NE(keys(chain(text)), base);
}

TEST_F(ResolveTest, StagesOfTheFrontProgramDoNotDependOnTheEngine) {
  const std::string text =
      "slmc: 1\nmodel: model\nstages: [{id: c, use: convert, with: {to: gguf, type: f32}}]\n";
  Environment other = environment();
  other.facts = EngineFacts{};
  EXPECT_EQ(keys(chain(text)),
            keys(resolve(decode(text, (root_ / "recipe.yaml").string(), registry()), other)));
}

TEST(SourceHash, OnePerMethodFolder) {
  const std::string all = source_hash(""), shared = source_hash("lib"), pruning = source_hash("pruning"),
                    distillation = source_hash("distillation");
  EXPECT_EQ(all.size(), 64u);
  EXPECT_NE(all, shared);
  EXPECT_NE(pruning, shared);
  EXPECT_NE(pruning, distillation);
}

}  // namespace
}  // namespace slmc::recipe
