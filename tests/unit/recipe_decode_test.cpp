// lib/recipe: text -> Recipe. tests/data/recipes/wrong.txt holds wrong recipes with the whole text that each
// must give.
#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "core/file.h"
#include "recipe/document.h"
#include "recipe/recipe.h"
#include "tests/unit/error_text.h"
#include "tests/unit/recipe_infos.h"

namespace slmc::recipe {
namespace {

const stage::Registry& registry() {
  static const stage::Registry all = test_registry();
  return all;
}

Recipe decoded(std::string_view text, const std::vector<std::string>& set = {}) {
  return decode(text, "/folder/r.yaml", registry(), set);
}

std::string says(std::string_view text, const std::vector<std::string>& set = {}) {
  return error_text([&] { decode(text, "r.yaml", registry(), set); });
}

constexpr const char* kWhole = R"(slmc: 1
name: demo
model: models/m.gguf
data:
  calib: {files: [c.jsonl], seq: 256, licence: CC BY-SA 4.0}
  train:
    mix:
      wiki: {files: [w.jsonl, /abs/w2.txt], weight: 2, skip_last: 20, licence: CC BY-SA 3.0}
      code: {files: [c.jsonl], field: body}
    seq: 128
    # how much is read, the stage says
stages:
  - {id: depth, use: drop, with: {layers: 3, search: greedy-kl}}
  - id: width
    use: prune
    with:
      ffn: 1280
      align: auto
  - {id: heal, use: distill, with: {teacher: $model, tokens: 60k, lr: 3.0e-4, replay: {files: [x.txt]}}}
  - {id: int4, use: quantize, with: {method: gptq, plan: p/plan.json}}
  - {id: gguf, use: convert, with: {to: gguf, type: q8_0}}
eval:
  every_stage: false
  reference: $depth
  tasks: [{ppl: t/wiki.test.txt, window: 256, windows: 8}, {choices: h.jsonl, first: 200}, {pairs: b.jsonl, name: blimp}, {ppl: u/wiki.test.txt}]
gates: {ppl_ratio: {max: 2.0}, 'acc_norm:h': {min: 0.3}, file_bytes: {max: 82MB}, parameters: {max: 1.5M}, seconds: {max: 15m}}
report: out/report.html
seed: 7
device: cuda:1
)";

TEST(Decode, EveryKeyOfAWholeRecipe) {
  const Recipe r = decoded(kWhole);
  EXPECT_EQ(r.name, "demo");
  EXPECT_EQ(r.model, "/folder/models/m.gguf");
  EXPECT_EQ(r.data.at("calib").spec->dump(),
            R"({"files":["/folder/c.jsonl"],"field":"text","skip_last":0,"seq":256,"samples":128,"seed":7})");
  EXPECT_EQ(
      r.data.at("train").spec->dump(),
      R"({"mix":{"wiki":{"files":["/folder/w.jsonl","/abs/w2.txt"],"weight":2.0,"field":"text","skip_last":20},)"
      R"("code":{"files":["/folder/c.jsonl"],"weight":1.0,"field":"body","skip_last":0}},"seq":128,"seed":7})");
  EXPECT_EQ(r.data.at("train").files.size(), 3u);
  EXPECT_EQ(r.data.at("train").files[1].place.line, 8);
  EXPECT_EQ(r.data.at("train").licences.at("wiki"), "CC BY-SA 3.0");
  EXPECT_EQ(r.data.at("calib").licences.at(""), "CC BY-SA 4.0");
  ASSERT_EQ(r.stages.size(), 5u);
  EXPECT_EQ(r.stages[0].settings.integer("layers"), 3);
  EXPECT_EQ(r.stages[1].settings.integer("ffn"), 1280);
  EXPECT_TRUE(r.stages[1].settings.is_auto("align"));
  EXPECT_TRUE(r.stages[1].settings.boolean("refit"));
  EXPECT_EQ(r.stages[2].settings.text("teacher"), "$model");
  EXPECT_EQ(r.stages[2].settings.number("lr"), 3e-4);
  EXPECT_EQ(r.stages[2].data.at("replay").files[0].path, "/folder/x.txt");
  EXPECT_EQ(r.stages[3].settings.text("plan"), "/folder/p/plan.json");
  EXPECT_EQ(r.stages[4].info->name, "convert");
  EXPECT_EQ(r.stages[1].places.at("ffn").line, 17);
  ASSERT_TRUE(r.eval.has_value());
  EXPECT_FALSE(r.eval->every_stage);
  EXPECT_EQ(r.eval->reference, "$depth");
  ASSERT_EQ(r.eval->tasks.size(), 4u);
  EXPECT_EQ(r.eval->tasks[0].name, "wiki.test");
  EXPECT_EQ(r.eval->tasks[0].settings.integer("windows"), 8);
  EXPECT_EQ(r.eval->tasks[0].file, "/folder/t/wiki.test.txt");
  EXPECT_EQ(r.eval->tasks[1].settings.integer("first"), 200);
  EXPECT_EQ(r.eval->tasks[2].name, "blimp");
  EXPECT_EQ(r.eval->tasks[3].name, "wiki.test-2");
  ASSERT_EQ(r.gates.size(), 5u);
  EXPECT_EQ(r.gates[0].most, 2.0);
  EXPECT_EQ(r.gates[1].metric, "acc_norm:h");
  EXPECT_EQ(r.gates[1].least, 0.3);
  EXPECT_EQ(r.gates[2].most, 82e6);
  EXPECT_EQ(r.gates[3].most, 1.5e6);
  EXPECT_EQ(r.gates[4].most, 900.0);
  EXPECT_EQ(r.report, "/folder/out/report.html");
  EXPECT_EQ(r.seed, 7u);
  EXPECT_EQ(r.device, "cuda:1");
}

TEST(Decode, JsonGivesTheSameRecipe) {
  const Recipe yaml = decoded(
      "slmc: 1\nmodel: m\nseed: 3\nstages:\n  - {id: a, use: prune, with: {ffn: 64, refit: false}}\ngates: "
      "{parameters: {max: 5}}\n");
  const Recipe json = decoded(R"({
  "slmc": 1, "model": "m", "seed": 3,
  "stages": [{"id": "a", "use": "prune", "with": {"ffn": 64, "refit": false}}],
  "gates": {"parameters": {"max": 5}}
})");
  EXPECT_EQ(to_yaml(json, "/folder"), to_yaml(yaml, "/folder"));
  EXPECT_EQ(json.stages[0].places.at("ffn").line, 3);
}

TEST(Decode, WhatYamlWouldGuessStaysWhatWasWritten) {
  const Recipe r = decoded("slmc: 1\nname: 010\nmodel: no\nstages: [{id: on, use: drop}]\n");
  EXPECT_EQ(r.name, "010");
  EXPECT_EQ(r.model, "/folder/no");
  EXPECT_EQ(r.stages[0].id, "on");
  EXPECT_EQ(decoded("\xEF\xBB\xBFslmc: 1\r\nmodel: m\r\nstages: [{id: a, use: drop}]\r\n").model,
            "/folder/m");
}

TEST(Decode, HubNamesAndReferencesAreNoPaths) {
  const Recipe r = decoded(
      "slmc: 1\nmodel: hf:org/name\ndata: {train: {files: [t]}}\nstages:\n"
      "  - {id: a, use: drop}\n  - {id: b, use: distill, with: {teacher: $a}}\n  - {id: c, use: distill, "
      "with: {teacher: ../t/}}\n");
  EXPECT_EQ(r.model, "hf:org/name");
  EXPECT_EQ(r.stages[1].settings.text("teacher"), "$a");
  EXPECT_EQ(r.stages[2].settings.text("teacher"), "/t");
}

TEST(Overrides, AreStrongerThanTheFileAndCheckedLikeIt) {
  const Recipe r = decoded(kWhole, {"width.ffn=1024", "seed=9", "data.calib.samples=64", "depth.list=3,4",
                                    "gates.kl.max=0.5", "heal.lr=1e-3"});
  EXPECT_EQ(r.stages[1].settings.integer("ffn"), 1024);
  EXPECT_EQ(r.stages[1].settings.all().at("ffn").from, stage::Value::From::Flag);
  EXPECT_EQ(r.stages[0].settings.all().at("layers").from, stage::Value::From::Recipe);
  EXPECT_EQ(r.stages[0].settings.integers("list"), (std::vector<std::int64_t>{3, 4}));
  EXPECT_EQ(r.seed, 9u);
  EXPECT_EQ((*r.data.at("calib").spec)["samples"], 64);
  EXPECT_EQ((*r.data.at("calib").spec)["seed"], 9);
  EXPECT_EQ(r.gates.back().metric, "kl");
}

TEST(Overrides, WrongOnesSayWhichOptionIsWrong) {
  const char* good = "slmc: 1\nmodel: m\nstages:\n  - {id: width, use: prune}\n";
  EXPECT_EQ(
      says(good, {"width.fnn=3"}),
      "--set width.fnn=3: error: unknown key 'fnn' in stage 'width' (prune)\nhint: did you mean 'ffn'?");
  EXPECT_EQ(says(good, {"width.ffn=x"}),
            "--set width.ffn=x: error: the setting 'ffn' must be a whole number from 1 to 1048576 channels, "
            "but is 'x'");
  EXPECT_EQ(says(good, {"widht.ffn=3"}),
            "--set widht.ffn=3: error: a --set must begin with a stage's id or a key of the recipe, but "
            "begins with 'widht'\n"
            "hint: did you mean 'width'?");
  EXPECT_EQ(
      says(good, {"width"}),
      "--set width: error: a --set must be PATH=VALUE, but is not\nhint: for example --set width.ffn=1280");
  EXPECT_EQ(says(good, {"stages.0.id=x"}),
            "--set stages.0.id=x: error: a --set must lead through groups of keys, but 'stages' is a list");
  EXPECT_EQ(says(good, {"model.path=x"}),
            "--set model.path=x: error: a --set must lead through groups of keys, but 'model' is a value");
  EXPECT_EQ(says(good, {"width.ffn=[1"}),
            "--set width.ffn=[1: error: a key must be a word, but is a list or a group\nhint: is a bracket "
            "left open?");
  EXPECT_EQ(says(good, {"width="}),
            "--set width=: error: the key 'with' of a stage must be a group of settings, but is empty");
}

TEST(Sweep, GivesEveryCombinationTheFirstKeySlowest) {
  const std::string text = R"(slmc: 1
model: m
stages: [{id: cut, use: drop, with: {list: [1]}}, {id: w, use: prune, with: {ffn: 64}}]
sweep: {cut.list: [[1], [2, 3]], seed: [4, 5], w.ffn: [96]}
)";
  const std::vector<Recipe> all = decode_all(text, "/folder/r.yaml", registry());
  ASSERT_EQ(all.size(), 4u);
  using Values = std::vector<std::pair<std::string, std::string>>;
  EXPECT_EQ(all[1].variant, (Values{{"cut.list", "[1]"}, {"seed", "5"}, {"w.ffn", "96"}}));
  EXPECT_EQ(all[2].variant, (Values{{"cut.list", "[2, 3]"}, {"seed", "4"}, {"w.ffn", "96"}}));
  EXPECT_EQ(all[2].seed, 4u);
  EXPECT_EQ(all[2].stages[0].settings.integers("list"), (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(all[3].stages[1].settings.integer("ffn"), 96);
  EXPECT_EQ(all[3].seed, 5u);
  EXPECT_EQ(decode_all(text, "/folder/r.yaml", registry(), {"sweep.cut.list=[[0]]", "sweep.seed=[9]"}).size(), 1u);
  EXPECT_TRUE(decode_all(kWhole, "/folder/r.yaml", registry()).front().variant.empty());
  EXPECT_NE(says(text).find("the recipe must be one chain here, but has a 'sweep'"), std::string::npos);
}

TEST(Sweep, MistakesAreToldOnceWithTheirPlace) {
  const auto told = [](const std::string& sweep) {
    return error_text([&] { decode_all("slmc: 1\nmodel: m\nstages: [{id: w, use: prune, with: {ffn: 64}}]\nsweep: " + sweep + "\n", "r.yaml", registry()); });
  };
  const auto has = [&](const std::string& sweep, const std::string& what) { EXPECT_NE(told(sweep).find(what), std::string::npos) << told(sweep); };
  has("{w.fnn: [1, 2]}", "unknown key 'fnn' in stage 'w' (prune)");
  has("{v.ffn: [1]}", "a key of 'sweep' must begin with a stage's id or a key of the recipe, but begins with 'v'");
  has("{w.ffn: 64}", "the sweep of 'w.ffn' must be a list of values, but is one value");
  has("{w.ffn: []}", "but is empty");
  has("{w.ffn: [{a: 1}]}", "must be a word, a number or a list of them");
  has("{w.ffn: [64, 96, 64]}", "'64' comes twice");
  has("{}", "the key 'sweep' must be a group");
  has("{w.ffn: [64, many]}", "r.yaml:4:");
  const std::string twice = told("{w.fnn: [1, 2]}");
  EXPECT_EQ(twice.find("unknown key"), twice.rfind("unknown key"));
  std::string many;
  for (int i = 0; i < 40; ++i) many += (i ? ", " : "") + std::to_string(64 + i);
  has("{w.ffn: [" + many + "], seed: [" + many + "]}", "a sweep must have at most 1000 combinations, but has more");
}

TEST(Write, DecodesToTheSameRecipe) {
  const Recipe once = decoded(kWhole);
  const std::string text = to_yaml(once, "/folder");
  EXPECT_EQ(text,
            "slmc: 1\nname: demo\nmodel: models/m.gguf\ndata:\n"
            "  calib: {files: [c.jsonl], licence: \"CC BY-SA 4.0\", seq: 256}\n"
            "  train: {mix: {wiki: {files: [w.jsonl, /abs/w2.txt], weight: 2, skip_last: 20, licence: \"CC "
            "BY-SA 3.0\"}, "
            "code: {files: [c.jsonl], field: body}}, seq: 128}\n"
            "stages:\n"
            "  - {id: depth, use: drop, with: {layers: 3, search: greedy-kl}}\n"
            "  - {id: width, use: prune, with: {ffn: 1280}}\n"
            "  - {id: heal, use: distill, with: {teacher: $model, tokens: 60000, lr: 3e-04, replay: {files: "
            "[x.txt], seq: 512}}}\n"
            "  - {id: int4, use: quantize, with: {method: gptq, plan: p/plan.json}}\n"
            "  - {id: gguf, use: convert, with: {to: gguf, type: q8_0}}\n"
            "eval:\n  every_stage: false\n  reference: $depth\n  tasks:\n"
            "    - {ppl: t/wiki.test.txt, window: 256, windows: 8}\n    - {choices: h.jsonl, first: 200}\n"
            "    - {pairs: b.jsonl, name: blimp}\n    - {ppl: u/wiki.test.txt, name: wiki.test-2}\n"
            "gates: {ppl_ratio: {max: 2}, \"acc_norm:h\": {min: 0.3}, file_bytes: {max: 82000000}, "
            "parameters: {max: 1500000}, seconds: {max: 900}}\n"
            "report: out/report.html\nseed: 7\ndevice: \"cuda:1\"\n");
  EXPECT_EQ(to_yaml(decoded(text), "/folder"), text);
}

TEST(Write, AwkwardTextsSurvive) {
  for (const char* name : {"no", "null", "12", "a b", "x: y", "#c", "\"q\"", "über", "-x", "a,b", "{", "*a",
                           "&a", "~", "a\\tb", "1e5"}) {
    Recipe r = decoded("slmc: 1\nmodel: m\nstages: [{id: a, use: drop}]\n");
    r.model = std::string("/folder/") + name;
    r.report = std::string("/elsewhere/") + name;
    const Recipe back = decoded(to_yaml(r, "/folder"));
    EXPECT_EQ(back.model, r.model);
    EXPECT_EQ(back.report, r.report);
  }
}

TEST(OneStage, ACommandLineIsARecipe) {
  const Recipe r = one_stage_recipe({.use = "prune",
                                     .model = "m.gguf",
                                     .settings = {{"ffn", "1280"}, {"criterion", "wanda"}},
                                     .data = {{"calib", {"c.jsonl"}}},
                                     .samples = 64,
                                     .seq = 256,
                                     .folder = "/here",
                                     .seed = 5},
                                    registry());
  EXPECT_EQ(r.text,
            "slmc: 1\nname: prune\nmodel: m.gguf\ndata:\n  calib: {files: [c.jsonl], samples: 64, seq: 256}\n"
            "stages:\n  - {id: prune, use: prune, with: {ffn: 1280, criterion: wanda}}\nseed: 5\n");
  EXPECT_EQ(r.stages[0].settings.all().at("ffn").from, stage::Value::From::Flag);
  EXPECT_EQ(to_yaml(decode(r.text, "/here/x.yaml", registry()), "/here"), r.text);
}

TEST(OneStage, ErrorsNameTheOption) {
  const auto text = [](std::map<std::string, std::string> settings) {
    return error_text([&] {
      one_stage_recipe({.use = "quantize", .model = "m", .settings = std::move(settings), .folder = "/here"},
                       registry());
    });
  };
  EXPECT_EQ(text({{"group", "x"}}),
            "--group: error: the setting 'group' must be a whole number from 1 to 4096, or auto, but is 'x'");
  EXPECT_EQ(
      text({{"keep_under", "80Mb"}, {"type", "q4_1"}}),
      "--keep-under: error: the setting 'keep_under' must be a size such as 80MB or 1.5GiB, but is '80Mb'\n"
      "--type: error: the setting 'type' must be one of q4_0, q8_0, but is 'q4_1'\nhint: did you mean "
      "'q4_0'?");
  EXPECT_EQ(text({{"method", "gptq"}}),
            "error: the stage 'quantize' (quantize) must have calibration data, but has none\n"
            "hint: add --calib FILE");
  try {
    one_stage_recipe({.use = "prune", .model = "m", .settings = {{"ffn", "0"}}, .folder = "/here"},
                     registry());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::Usage);
  }
}

TEST(Starter, Decodes) {
  stage::Registry all = test_registry();
  const Recipe r = decode(starter_recipe("models/x y.gguf"), "/folder/r.yaml", all);
  EXPECT_EQ(r.model, "/folder/models/x y.gguf");
  EXPECT_EQ(r.stages.size(), 3u);
}

TEST(Schema, NamesEveryStageAndMetric) {
  const Json schema = recipe_schema(registry());
  EXPECT_EQ(schema["properties"]["stages"]["items"]["oneOf"].size(), 6u);
  EXPECT_EQ(schema["properties"]["stages"]["items"]["oneOf"][1]["properties"]["with"]["properties"]["ffn"]
                  ["maximum"],
            1 << 20);
  EXPECT_EQ(schema["required"], Json::parse(R"(["slmc","model","stages"])"));
  for (const char* key :
       {"slmc", "name", "model", "data", "stages", "eval", "gates", "report", "seed", "device", "sweep"}) {
    EXPECT_TRUE(schema["properties"].contains(key)) << key;
  }
  EXPECT_EQ(schema["properties"].size(), 11u);
}

// ---- wrong recipes ----

struct Wrong {
  std::string name, recipe, says;
};

// "=== NAME", the recipe, "--- says", the text; \xHH in a recipe is that byte.
std::vector<Wrong> wrong_recipes() {
  std::vector<Wrong> out;
  std::string* into = nullptr;
  std::string text = read_text(SLMC_SOURCE_DIR "/tests/data/recipes/wrong.txt");
  for (std::size_t at = 0, end; at < text.size(); at = end + 1) {
    end = text.find('\n', at);
    const std::string line = text.substr(at, end - at);
    if (line.starts_with("=== ")) {
      out.push_back({line.substr(4), "", ""});
      into = &out.back().recipe;
    } else if (line == "--- says") {
      into = &out.back().says;
    } else {
      *into += line + "\n";
    }
  }
  for (Wrong& w : out) {
    for (std::size_t at; (at = w.recipe.find("\\x")) != std::string::npos;) {
      w.recipe.replace(at, 4,
                       std::string(1, static_cast<char>(std::stoi(w.recipe.substr(at + 2, 2), nullptr, 16))));
    }
  }
  return out;
}

TEST(Wrong, EveryWrongRecipeSaysExactlyThis) {
  const std::vector<Wrong> all = wrong_recipes();
  EXPECT_EQ(all.size(), 73u);
  for (const Wrong& w : all) EXPECT_EQ(says(w.recipe) + "\n", w.says) << w.name;
}

TEST(Wrong, KindIsRecipe) {
  for (const Wrong& w : wrong_recipes()) {
    try {
      decode(w.recipe, "r.yaml", registry());
      ADD_FAILURE() << w.name;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::Recipe) << w.name;
    }
  }
}

TEST(Hostile, AliasBombsNestingAndSizeAreRefusedQuickly) {
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 30; ++i) {
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [";
    for (int k = 0; k < 9; ++k) bomb += "*a" + std::to_string(i - 1) + (k < 8 ? ", " : "]\n");
  }
  const auto start = std::chrono::steady_clock::now();
  EXPECT_NE(says(bomb).find("this has an anchor"), std::string::npos);
  EXPECT_EQ(says("slmc: 1\nmodel: " + std::string(60, '[') + std::string(60, ']') + "\n"),
            "r.yaml:2:39: error: a recipe must be nested at most 32 deep, but goes deeper\n    2 | model: " +
                std::string(60, '[') + std::string(33, ']') + "\n      | " + std::string(38, ' ') + "^");
  EXPECT_EQ(says(std::string(2 << 20, 'a')),
            "r.yaml: error: a recipe must have at most 1048576 bytes, but has 2097152");
  std::string many = "a: [";
  for (int i = 0; i < 200000; ++i) many += "1,";
  EXPECT_NE(says(many + "1]").find("a recipe must have at most 100000 values, but has more"),
            std::string::npos);
  std::string keys = "slmc: 1\n";
  for (int i = 0; i < 20000; ++i) keys += "k" + std::to_string(i) + ": 1\nk" + std::to_string(i) + ": 1\n";
  const std::string text = says(keys);
  EXPECT_NE(text.find("the key 'k0' must be given once"), std::string::npos);
  EXPECT_LT(text.size(), 20000u);
  std::string unknown = "slmc: 1\nmodel: m\nstages: [{id: a, use: drop}]\n";
  for (int i = 0; i < 200; ++i) unknown += "zzzzz" + std::to_string(i) + ": 1\n";
  EXPECT_TRUE(says(unknown).ends_with("\n  and 150 more problems"));
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 20.0);
}

// Any damage gives a recipe or an Error(Recipe), never anything else.
TEST(Hostile, EveryTruncationAndEveryFlippedByte) {
  const std::string whole = kWhole;
  int accepted = 0;
  const auto judge = [&](const std::string& text) {
    try {
      decoded(text);
      ++accepted;
    } catch (const Error& error) {
      ASSERT_EQ(error.kind(), ErrorKind::Recipe) << text;
      ASSERT_FALSE(error.message().empty());
    }
  };
  for (std::size_t n = 0; n < whole.size(); ++n) judge(whole.substr(0, n));
  for (std::size_t i = 0; i < whole.size(); ++i) {
    for (const unsigned char flip : {0x01, 0x20, 0x80}) {
      std::string text = whole;
      text[i] = static_cast<char>(static_cast<unsigned char>(text[i]) ^ flip);
      judge(text);
    }
  }
  EXPECT_GT(accepted, 100);  // a letter of a file's name may be any other
}

}  // namespace
}  // namespace slmc::recipe
