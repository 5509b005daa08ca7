// lib/recipe/run: reuse, force, gates, lineage, delivery.
#include <cmath>
#include <fstream>

#include "recipe/keys.h"
#include "recipe/lineage.h"
#include "recipe/store.h"
#include "tests/unit/error_text.h"
#include "tests/unit/recipe_run_fixture.h"

namespace slmc::recipe {
namespace {

using RunTest = RunFixture;
using Names = std::vector<std::string>;

TEST_F(RunTest, MakesEveryStageAndMeasuresIt) {
  const Chain c = chain();
  const RunResult r = run(c, options(), engine(), sink());
  EXPECT_EQ(jobs_, (Names{"eval", "drop", "eval", "prune", "eval", "distill", "eval", "quantize", "eval"}));
  EXPECT_EQ(states(), (Names{"depth started", "depth done", "width started", "width done", "heal started",
                             "heal done", "small started", "small done"}));
  ASSERT_EQ(r.rows.size(), 5u);
  for (std::size_t i = 0; i < 4; ++i) {
    const Row& row = r.rows[i + 1];
    EXPECT_EQ(row.artefact.parameters, c.stages[i].out.parameters);  // the forecast was right
    EXPECT_EQ(row.folder, stage_folder(root_ / "work", i + 1, c.recipe.stages[i].id, c.stages[i].key));
    EXPECT_TRUE(fs::exists(row.folder / "manifest.json"));
    EXPECT_TRUE(fs::exists(row.folder / "result.json"));
    EXPECT_FALSE(fs::exists(row.folder / "resume"));
    EXPECT_FALSE(row.reused);
    EXPECT_GT(row.metrics.at("ppl"), 9);
    EXPECT_EQ(row.metrics.at("ppl:test"), row.metrics.at("ppl"));
    EXPECT_DOUBLE_EQ(row.metrics.at("log_ppl_increase"), std::log(row.metrics.at("ppl_ratio")));
  }
  EXPECT_EQ(r.rows[0].metrics.at("kl"), 0);
  EXPECT_EQ(r.rows[0].metrics.at("ppl_ratio"), 1);
  EXPECT_EQ(r.rows[4].path.filename(), "model.gguf");
  EXPECT_EQ(ir::load(r.rows[4].path.string()).sizes().blocks[0].ffn, 32);
  EXPECT_TRUE(r.gates_met);
  ASSERT_EQ(r.gates.size(), 2u);
  EXPECT_EQ(r.output, r.rows[4].path);
  for (const auto& entry : fs::directory_iterator(root_ / "work"))
    EXPECT_TRUE(entry.path().filename() == ".locks" || !entry.path().filename().string().starts_with("."));
  EXPECT_EQ(kept_gemm(root_ / "work"), "onednn");
  EXPECT_EQ(kept_gemm(root_ / "work", "cuda:0"), "");
}

TEST_F(RunTest, TheSizeOfAModelIsThatOfItsWeightFilesInForecastRowAndGate) {
  const Chain c = chain();
  const RunResult r = run(c, options(), engine(), sink());
  EXPECT_EQ(r.rows[0].file_bytes, static_cast<std::int64_t>(fs::file_size(root_ / "model/model.safetensors")));
  for (std::size_t i = 0; i < 3; ++i) {  // folders, with a config and a plan.json beside the weights
    EXPECT_EQ(r.rows[i + 1].file_bytes, static_cast<std::int64_t>(fs::file_size(r.rows[i + 1].path / "model.safetensors")));
    EXPECT_EQ(c.stages[i].out.bytes, r.rows[i + 1].file_bytes) << i;
  }
  EXPECT_EQ(r.rows[4].file_bytes, static_cast<std::int64_t>(fs::file_size(r.rows[4].path)));
  EXPECT_EQ(r.gates[1].value, static_cast<double>(r.rows[4].file_bytes));
}

TEST_F(RunTest, AForecastAboveTheLimitIsRefusedBeforeAnyWork) {
  RunOptions o = options();
  const Chain c = chain();
  o.max_ram = c.stages[2].peak_bytes - 1;
  for (const bool plan : {true, false}) {
    try {
      plan ? void(check_run(c, o)) : void(run(c, o, engine(), sink()));
      FAIL() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(exit_code(error.kind()), 5);
      EXPECT_NE(error.text().find("the stage 'heal' (distill) must fit"), std::string::npos) << error.text();
      EXPECT_NE(error.text().find("recipe.yaml:10:"), std::string::npos) << error.text();
    }
  }
  EXPECT_TRUE(jobs_.empty());
  EXPECT_FALSE(fs::exists(root_ / "work"));
  o.until = "width";  // stages that are not made need no memory
  EXPECT_EQ(check_run(c, o), (std::vector<bool>{true, true}));
  run_it();
  o.until = "";
  EXPECT_EQ(check_run(chain(), o), std::vector<bool>(4, false));
}

TEST_F(RunTest, PlanKnowsWhereARunWouldStartAndStop) {
  RunOptions o = options();
  o.from = "heal";
  EXPECT_THROW(check_run(chain(), o), Error);
  o.from = "";
  o.until = "depth";
  run(chain(), o, engine(), sink());
  o.until = "width";
  o.from = "width";
  Chain c = chain();
  EXPECT_EQ(check_run(c, o), (std::vector<bool>{false, true}));
  keep_first(c, 2);
  EXPECT_EQ(c.disk_bytes, static_cast<std::uint64_t>(c.stages[1].out.bytes));
  EXPECT_EQ(to_json(c)["stages"].size(), 2u);
}

TEST_F(RunTest, ALineageGivesBackTheRecipeWithItsEvaluationGatesAndAutomaticValues) {
  const std::string text = [] {
    std::string t = kRecipe;
    t.replace(t.find("eval: {"), 7, "eval: {every_stage: false, reference: $depth, ");
    return t;
  }();
  const Chain first = chain(text);
  const RunResult r = run(first, options(), engine(), sink());
  const Json entries = read_lineage(r.output);
  const std::string absolute = recipe_from_lineage(entries, registry(), {});
  const std::string elsewhere = (root_ / "other" / "again.yaml").string();
  fs::create_directories(root_ / "other");
  const Chain again = resolve(decode(absolute, elsewhere, registry()), environment());
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(again.stages[i].key, first.stages[i].key) << i;
  EXPECT_TRUE(again.stages[3].reused);
  EXPECT_EQ(absolute.find("align"), std::string::npos) << absolute;  // it was automatic
  ASSERT_TRUE(again.recipe.eval);
  EXPECT_EQ(again.recipe.eval->reference, "$depth");
  EXPECT_FALSE(again.recipe.eval->every_stage);
  EXPECT_EQ(again.recipe.eval->tasks.at(0).file, root_ / "data/test.txt");
  EXPECT_EQ(again.recipe.eval->tasks.at(0).settings.integer("window"), 16);
  ASSERT_EQ(again.recipe.gates.size(), 2u);
  EXPECT_EQ(again.recipe.gates[1].most, 1e6);
  // Beside the data its paths are short, and mean the same.
  const std::string here = recipe_from_lineage(entries, registry(), root_);
  EXPECT_NE(here.find("model: model\n"), std::string::npos) << here;
  EXPECT_EQ(here.find(root_.string()), std::string::npos) << here;
  EXPECT_EQ(resolve(decode(here, (root_ / "r.yaml").string(), registry()), environment()).stages[3].key, first.stages[3].key);
  // A model in the middle of the chain is not judged by the gates of the last one.
  const std::string middle = recipe_from_lineage(read_lineage(r.rows[2].path), registry(), {});
  EXPECT_EQ(middle.find("gates"), std::string::npos) << middle;
  EXPECT_NE(middle.find("eval"), std::string::npos) << middle;
}

TEST_F(RunTest, PlanComparesWithResultsOfTheSameRecipeOnly) {
  run_it();
  std::string text = kRecipe;
  text.replace(text.find("criterion: random"), 17, "criterion: magnitude");
  EXPECT_EQ(chain(text).stages[1].why, "for the last result, 'criterion' was \"random\"");
  text.replace(text.find("name: demo"), 10, "name: other");
  EXPECT_EQ(chain(text).stages[1].why, "no result yet");
}

TEST_F(RunTest, TheJobHoldsEverythingThatTheOpNeeds) {
  RunOptions o = options();
  o.until = "heal";
  o.device = "cpu";
  o.max_ram = 5'000'000'000;
  stage::Job job;
  run(
      chain(), o,
      [&](const stage::Job& j, const Sink& s) {
        if (j.op == "distill") job = j;
        return compute(j, s);
      },
      sink());
  EXPECT_EQ(job.models.at("teacher"), (root_ / "model").string());
  EXPECT_TRUE(fs::exists(job.model + "/config.json"));
  EXPECT_EQ((*job.data)["train"]["files"][0], (root_ / "data/train.jsonl").string());
  EXPECT_FALSE(job.data->contains("calib"));
  EXPECT_EQ(job.settings.integer("tokens"), 1000);
  EXPECT_EQ(job.gemm, "onednn");
  EXPECT_EQ(job.threads, 1);
  EXPECT_EQ(job.max_ram, 5'000'000'000u);
  EXPECT_EQ(job.cache, (root_ / "cache").string());
  EXPECT_NE(job.seed, 0u);
}

TEST_F(RunTest, ASecondRunReusesEverything) {
  run_it();
  const auto before = contents("work");
  jobs_.clear();
  events_.clear();
  const RunResult r = run_it();
  EXPECT_EQ(jobs_, Names{});
  EXPECT_EQ(states(), (Names{"depth reused", "width reused", "heal reused", "small reused"}));
  EXPECT_EQ(contents("work"), before);
  for (std::size_t i = 1; i < r.rows.size(); ++i) EXPECT_TRUE(r.rows[i].reused);
  EXPECT_EQ(r.rows[1].seconds, 2.5);  // as first measured
  EXPECT_TRUE(chain().stages[0].reused);
  EXPECT_EQ(chain().stages[0].why, "");
}

TEST_F(RunTest, OnlyWhatChangedRunsAgain) {
  run_it();
  jobs_.clear();
  std::string text = kRecipe;
  text.replace(text.find("tokens: 1k"), 10, "tokens: 2k");
  EXPECT_EQ(chain(text).stages[2].why, "for the last result, 'tokens' was 1000");
  EXPECT_EQ(chain(text).stages[3].why, "for the last result, its input was another");
  run_it(text);
  EXPECT_EQ(jobs_, (Names{"distill", "eval", "quantize", "eval"}));
  jobs_.clear();
  run_it();  // and back: nothing
  EXPECT_EQ(jobs_, Names{});
}

TEST_F(RunTest, AnotherEvaluationMakesNoModelAgain) {
  run_it();
  jobs_.clear();
  std::string text = kRecipe;
  text.replace(text.find("windows: 2"), 10, "windows: 3");
  run_it(text);
  EXPECT_EQ(jobs_, Names(5, "eval"));
}

TEST_F(RunTest, EveryStageFalseMeasuresTheEnds) {
  std::string text = kRecipe;
  text.replace(text.find("eval: {"), 7, "eval: {every_stage: false, ");
  const RunResult r = run_it(text);
  EXPECT_EQ(count("eval"), 2);
  EXPECT_EQ(jobs_.front(), "eval");
  EXPECT_EQ(jobs_.back(), "eval");
  EXPECT_FALSE(r.rows[1].metrics.contains("ppl"));
}

TEST_F(RunTest, AReferenceThatAStageMakesIsComparedWithOnceItIsThere) {
  std::string text = kRecipe;
  text.replace(text.find("eval: {"), 7, "eval: {reference: $width, ");
  const RunResult r = run_it(text);
  EXPECT_EQ(jobs_, (Names{"drop", "prune", "eval", "eval", "eval", "distill", "eval", "quantize", "eval"}));
  EXPECT_EQ(r.rows[2].metrics.at("kl"), 0);
  EXPECT_EQ(r.rows[0].metrics.at("kl"), 0.1);
  EXPECT_EQ(read_lineage(r.rows[1].path).back()["metrics"]["after"]["kl"], 0.1);
}

TEST_F(RunTest, ForceMakesOneStageAgainAndTheSameBytes) {
  run_it();
  const auto before = contents("work");
  jobs_.clear();
  RunOptions o = options();
  o.force = {"width"};
  const RunResult r = run(chain(), o, engine(), sink());
  EXPECT_EQ(jobs_, Names{"prune"});
  EXPECT_EQ(contents("work"), before);
  EXPECT_FALSE(r.rows[2].reused);
  EXPECT_TRUE(r.rows[3].reused);
  jobs_.clear();
  o.force = {"*"};
  run(chain(), o, engine(), sink());
  EXPECT_EQ(jobs_, (Names{"drop", "prune", "distill", "quantize"}));
  o.force = {"widht"};
  EXPECT_EQ(error_text([&] { run(chain(), o, engine(), sink()); }),
            "error: the option --again must name a stage of the recipe, but 'widht' is none\nhint: did you "
            "mean 'width'?");
}

TEST_F(RunTest, UntilAndFrom) {
  RunOptions o = options();
  o.from = "width";
  EXPECT_EQ(error_text([&] { run(chain(), o, engine(), sink()); }),
            "error: the stages before --from width must be finished, but 'depth' is not\nhint: run without "
            "--from, or begin at that stage");
  EXPECT_EQ(jobs_, Names{});
  o = options();
  o.until = "depth";
  const RunResult r = run(chain(), o, engine(), sink());
  EXPECT_EQ(r.rows.size(), 2u);
  EXPECT_TRUE(r.gates.empty());
  EXPECT_EQ(jobs_, (Names{"eval", "drop", "eval"}));
  o = options();
  o.from = "width";
  EXPECT_EQ(run(chain(), o, engine(), sink()).rows.size(), 5u);
}

TEST_F(RunTest, DamagedArtefactsAreMadeAgain) {
  const RunResult r = run_it();
  const auto before = contents("work");
  for (const fs::path& file : {r.rows[4].path, r.rows[4].folder / "manifest.json"}) {
    std::string text = read_text(file);
    text[text.size() / 2] = static_cast<char>(text[text.size() / 2] ^ 1);
    write_text(file, text);
    jobs_.clear();
    run_it();
    EXPECT_EQ(jobs_, Names{"quantize"}) << file;
    EXPECT_EQ(contents("work"), before) << file;
  }
}

TEST_F(RunTest, KeepLastLeavesOneModelAndStillReusesIt) {
  RunOptions o = options();
  o.keep = Keep::Last;
  const RunResult r = run(chain(), o, engine(), sink());
  for (std::size_t i = 1; i < 4; ++i) EXPECT_FALSE(fs::exists(r.rows[i].path));
  EXPECT_TRUE(fs::exists(r.rows[4].path));
  jobs_.clear();
  const RunResult again = run(chain(), o, engine(), sink());
  EXPECT_EQ(jobs_, Names{});
  EXPECT_EQ(again.rows[2].file_bytes, r.rows[2].file_bytes);
  EXPECT_EQ(again.rows[2].metrics, r.rows[2].metrics);
  // A change of the last stage needs what is before it, and so on down.
  std::string text = kRecipe;
  text.replace(text.find("type: q8_0"), 10, "type: q4_0");
  run_it(text);
  EXPECT_EQ(jobs_, (Names{"drop", "prune", "distill", "quantize", "eval"}));
}

// ---- gates ----

TEST_F(RunTest, GatesThatAreNotMetAreAResultNotAnError) {
  std::string text = kRecipe;
  text.replace(text.find("gates:"), std::string::npos,
               "gates: {ppl_ratio: {max: 0.5}, file_bytes: {min: 1, max: 1MB}, parameters: {max: 10}, "
               "seconds: {max: 1h}}\n");
  const RunResult r = run_it(text);
  ASSERT_EQ(r.gates.size(), 4u);
  EXPECT_FALSE(r.gates_met);
  EXPECT_FALSE(r.gates[0].met);
  EXPECT_GT(*r.gates[0].value, 0.5);
  EXPECT_TRUE(r.gates[1].met);
  EXPECT_FALSE(r.gates[2].met);
  EXPECT_TRUE(r.gates[3].met);
  EXPECT_EQ(*r.gates[3].value, 2.5 + 3.5 + 4.5 + 5.5);
}

TEST_F(RunTest, AnUnmeasuredGateIsNotMet) {
  const RunResult r = run(
      chain(), options(),
      [&](const stage::Job& job, const Sink& s) {
        Json result = compute(job, s);
        if (job.op == "eval") result["tasks"][0].erase("ppl_ratio");
        return result;
      },
      sink());
  EXPECT_FALSE(r.gates_met);
  EXPECT_FALSE(r.gates[0].value.has_value());
}

// ---- delivery, lineage, events ----

TEST_F(RunTest, TheLastModelIsDelivered) {
  RunOptions o = options();
  o.output = root_ / "out/final.gguf";
  const RunResult r = run(chain(), o, engine(), sink());
  EXPECT_EQ(r.output, o.output);
  EXPECT_EQ(read_text(o.output), read_text(r.rows[4].path));
  EXPECT_EQ(read_lineage(o.output).size(), 4u);
  jobs_.clear();
  EXPECT_NE(error_text([&] {
              run(chain(), o, engine(), sink());
            }).find("the output must be new, but is there already"),
            std::string::npos);
  o.replace_output = true;
  EXPECT_NO_THROW(run(chain(), o, engine(), sink()));
  o = options();
  o.until = "width";
  o.output = root_ / "folder";
  run(chain(), o, engine(), sink());
  EXPECT_EQ(ir::load(o.output.string()).blocks(), 1);
  EXPECT_EQ(read_lineage(o.output).size(), 2u);
}

TEST_F(RunTest, LineageTellsHowEachModelWasMade) {
  const RunResult r = run_it();
  const Json lineage = read_lineage(r.rows[3].path);
  ASSERT_EQ(lineage.size(), 3u);
  const Json& heal = lineage[2];
  EXPECT_EQ(heal["id"], "heal");
  EXPECT_EQ(heal["stage"], "distill");
  EXPECT_EQ(heal["recipe"].dump(), R"({"name":"demo","seed":0})");
  EXPECT_EQ(heal["key"], r.rows[3].key);
  EXPECT_EQ(heal["settings"]["tokens"], 1000);
  EXPECT_EQ(heal["inputs"]["teacher"]["key"], r.rows[0].key);
  EXPECT_EQ(heal["inputs"]["model"]["key"], r.rows[2].key);
  EXPECT_EQ(heal["versions"]["torch"], "2.13.0");
  EXPECT_EQ(heal["versions"]["gemm"], "onednn");
  EXPECT_EQ(heal["metrics"]["before"]["ppl"], r.rows[2].metrics.at("ppl"));
  EXPECT_EQ(heal["metrics"]["after"]["ppl"], r.rows[3].metrics.at("ppl"));
  EXPECT_EQ(heal["measured"]["seconds"], 4.5);
  EXPECT_EQ(lineage[0]["data"]["calib"]["licences"][""], "CC0");
  EXPECT_EQ(heal["model"]["parameters"], r.rows[3].artefact.parameters);
  // The GGUF carries it inside as well, without what would differ from run to run.
  fs::remove(lineage_path(r.rows[4].path));
  const Json inside = read_lineage(r.rows[4].path);
  ASSERT_EQ(inside.size(), 4u);
  EXPECT_EQ(inside[3]["id"], "small");
  EXPECT_FALSE(inside[0].contains("measured"));
  EXPECT_FALSE(inside[0].contains("metrics"));
}

TEST_F(RunTest, TheRecipeFromALineageHasTheSameKeys) {
  const RunResult r = run_it();
  const std::string text = recipe_from_lineage(read_lineage(r.rows[4].path), registry(), root_);
  const Chain back = resolve(decode(text, (root_ / "again.yaml").string(), registry()), environment());
  ASSERT_EQ(back.stages.size(), 4u) << text;
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(back.stages[i].key, r.rows[i + 1].key) << text;
  EXPECT_NE(text.find("licence: CC0"), std::string::npos);
}

TEST_F(RunTest, LineagesThatCannotBeARecipeSayWhy) {
  const RunResult r = run_it();
  const Json lineage = read_lineage(r.rows[4].path);
  const auto text = [&](const Json& entries) {
    return error_text([&] { recipe_from_lineage(entries, registry(), root_); });
  };
  EXPECT_EQ(text(Json::array()),
            "error: the model must have a lineage to make a recipe of, but has none\nhint: only models that "
            "slmc made have one");
  Json other = lineage;
  other[2]["recipe"]["seed"] = 5;
  EXPECT_NE(text(other).find("the stages must share one seed, but the stage 'heal' was made with another"),
            std::string::npos);
  other = lineage;
  other[1]["stage"] = "melt";
  EXPECT_NE(
      text(other).find(
          "the stage 'width' must use one of drop, prune, distill, quantize, convert, edit, but uses 'melt'"),
      std::string::npos);
  other = lineage;
  other[1]["data"]["calib"] = {{"spec", {{"files", {"x"}}}}};
  EXPECT_NE(text(other).find("the stages must share the data 'calib'"), std::string::npos);
}

TEST_F(RunTest, BrokenLineagesAreModelErrorsWhateverTheyHold) {
  const RunResult r = run_it();
  const std::string whole = dump_compact(read_lineage(r.rows[4].path));
  int broken = 0;
  for (std::size_t i = 0; i < whole.size(); ++i) {
    std::string damaged = whole;
    damaged[i] = "0[{\"x"[i % 5];
    write_text(root_ / "m.gguf.lineage.json", damaged);
    try {
      recipe_from_lineage(read_lineage(root_ / "m.gguf"), registry(), root_);
    } catch (const Error& error) {
      ASSERT_TRUE(error.kind() == ErrorKind::Model || error.kind() == ErrorKind::Unsupported) << error.text();
      ++broken;
    }
  }
  EXPECT_GT(broken, 200);
  write_text(root_ / "m.gguf.lineage.json", R"([{"slmc_lineage": 2}])");
  EXPECT_EQ(error_text([&] { read_lineage(root_ / "m.gguf"); }),
            (root_ / "m.gguf.lineage.json").string() +
                ": error: the lineage must be of version 1 or older, but is of version 2\nhint: read it with "
                "the newer slmc that wrote it");
}

TEST_F(RunTest, EventsBeginWithTheRunAndNameTheirStage) {
  run(chain(), options(), engine(), sink());
  EXPECT_EQ(events_.front().dump(),
            R"({"event":"run","recipe":"demo","stages":["depth","width","heal","small"]})");
  EXPECT_EQ(events_.back()["event"], "gate");
  for (const Json& e : events_) {
    EXPECT_TRUE(e["event"] != "progress" || e.contains("stage"));
  }
}

// A folder with a config and no weights: the first stage draws them, the input is not measured, nothing may be compared with it.
TEST_F(RunTest, TrainingFromScratchNeedsNoWeights) {
  const stage::Registry with_train = test_registry_with_train();
  fs::remove(root_ / "model/model.safetensors");
  const auto resolved = [&](const std::string& stages, const std::string& eval) {
    const std::string text = "slmc: 1\nmodel: model\ndata: {train: {files: [data/train.jsonl], seq: 16}}\nstages:\n" + stages +
                             "eval: {" + eval + "tasks: [{ppl: data/test.txt, window: 16, windows: 2}]}\n";
    return resolve(decode(text, (root_ / "recipe.yaml").string(), with_train), environment());
  };
  const std::string stages =
      "  - {id: fresh, use: train, with: {init: random}}\n  - {id: small, use: quantize, with: {to: gguf, type: q8_0}}\n";
  const Executor drawing = [&](const stage::Job& job, const Sink& events) {
    jobs_.push_back(job.op);
    if (job.op != "train") return compute(job, events);
    EXPECT_EQ(job.settings.text("init"), "random");
    const ir::Model drawn = ir::from_config(job.model, [](const ir::TensorSpec& spec, std::int64_t) {
      std::int64_t n = 1;
      for (const std::int64_t s : spec.shape) n *= s;
      return io::TensorData::floats(spec.shape, std::vector<float>(static_cast<std::size_t>(n), 0.5f));
    });
    ir::write_hf(drawn, job.out, DType::F32);
    return Json{{"event", "result"}};
  };
  for (const std::string reference : {"reference: none, ", "reference: $fresh, "}) {
    SCOPED_TRACE(reference);
    jobs_.clear();
    fs::remove_all(root_ / "work");
    const Chain c = resolved(stages, reference);
    EXPECT_TRUE(c.input.blank);
    const RunResult result = run(c, options(), drawing, sink());
    EXPECT_EQ(jobs_, (Names{"train", "eval", "quantize", "eval"}));
    EXPECT_FALSE(result.rows[0].metrics.contains("ppl"));
    EXPECT_FALSE(result.rows[1].metrics.contains("bytes_ratio"));
    EXPECT_TRUE(result.rows[2].metrics.contains("ppl"));
    jobs_.clear();
    run(resolved(stages, reference), options(), drawing, sink());
    EXPECT_EQ(jobs_, Names{});                             // a second run finds everything there
  }
  EXPECT_NE(error_text([&] { resolved(stages, ""); }).find("error: the reference must have weights, but '$model' is a config only"),
            std::string::npos);
  EXPECT_NE(error_text([&] {
              resolved(stages + "  - {id: heal, use: distill, with: {teacher: $model, tokens: 1k}}\n", "reference: none, ");
            }).find("the model of 'teacher' must have weights, but '$model' is a config only"),
            std::string::npos);
  EXPECT_NE(error_text([&] { resolved("  - {id: fresh, use: train}\n", "reference: none, "); }), "no error");      // init: model reads them
}

}  // namespace
}  // namespace slmc::recipe
