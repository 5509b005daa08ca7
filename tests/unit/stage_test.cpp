// lib/stage: one table gives parsing, messages, schema and help; jobs and errors survive the trip between the
// two programs.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/text.h"
#include "stage/info.h"
#include "stage/job.h"
#include "stage/measures.h"
#include "stage/settings.h"
#include "tests/unit/error_text.h"

namespace slmc::stage {
namespace {

Setting make(Type type) { return {.name = "x", .type = type, .help = "A thing."}; }

Setting ranged(Type type, double least, double most, std::string unit = {}) {
  return {
      .name = "x", .type = type, .help = "A thing.", .least = least, .most = most, .unit = std::move(unit)};
}

Setting choice() {
  return {.name = "x", .type = Type::Choice, .help = "A thing.", .choices = {"wanda", "magnitude"}};
}

std::string refused(const Setting& setting, std::string_view text) {
  return error_text([&] { parse_value(setting, text); });
}

TEST(Setting, TextsOfEveryTypeBecomeValues) {
  EXPECT_EQ(std::get<std::int64_t>(parse_value(make(Type::Integer), "-12").value), -12);
  EXPECT_EQ(std::get<std::int64_t>(parse_value(make(Type::Count), "60k").value), 60000);
  EXPECT_EQ(std::get<std::int64_t>(parse_value(make(Type::Count), "1.6M").value), 1600000);
  EXPECT_EQ(std::get<std::int64_t>(parse_value(make(Type::Bytes), "80MB").value), 80000000);
  EXPECT_EQ(std::get<std::int64_t>(parse_value(make(Type::Bytes), "80MiB").value), 80 << 20);
  EXPECT_EQ(std::get<double>(parse_value(make(Type::Number), "1e-4").value), 1e-4);
  EXPECT_TRUE(std::get<bool>(parse_value(make(Type::Boolean), "true").value));
  EXPECT_FALSE(std::get<bool>(parse_value(make(Type::Boolean), "false").value));
  EXPECT_EQ(std::get<std::string>(parse_value(make(Type::Text), "010").value), "010");
  EXPECT_EQ(std::get<std::string>(parse_value(choice(), "wanda").value), "wanda");
  EXPECT_EQ(std::get<std::string>(parse_value(make(Type::Model), "$heal").value), "$heal");
  using List = std::vector<std::int64_t>;
  EXPECT_EQ(std::get<List>(parse_value(make(Type::Integers), "3,4, 7-9").value), (List{3, 4, 7, 8, 9}));
  EXPECT_EQ(std::get<List>(parse_value(make(Type::Integers), "[5]").value), List{5});
  EXPECT_EQ(std::get<List>(parse_value(make(Type::Integers), "").value), List{});
  EXPECT_EQ(*std::get<SharedJson>(parse_value(make(Type::Data), "calib").value), Json("calib"));
}

TEST(Setting, JsonOfEveryTypeBecomesValues) {
  EXPECT_EQ(std::get<std::int64_t>(value_from_json(make(Type::Integer), Json(7)).value), 7);
  EXPECT_EQ(std::get<std::int64_t>(value_from_json(make(Type::Bytes), Json("1kB")).value), 1000);
  EXPECT_EQ(std::get<double>(value_from_json(make(Type::Number), Json(3)).value), 3.0);
  EXPECT_TRUE(std::get<bool>(value_from_json(make(Type::Boolean), Json(true)).value));
  EXPECT_EQ(std::get<std::vector<std::int64_t>>(
                value_from_json(make(Type::Integers), Json::parse(R"([1,"4-5"])")).value),
            (std::vector<std::int64_t>{1, 4, 5}));
  EXPECT_EQ(std::get<SharedJson>(value_from_json(make(Type::Data), Json::parse(R"({"files":["a"]})")).value)
                ->dump(),
            R"({"files":["a"]})");
}

TEST(Setting, AutoOnlyWhereAllowed) {
  Setting s = make(Type::Integer);
  EXPECT_EQ(refused(s, "auto"), "error: the setting 'x' must be a whole number, but is 'auto'");
  s.may_be_auto = true;
  EXPECT_TRUE(parse_value(s, "auto").is_auto);
  EXPECT_EQ(refused(s, "aut"), "error: the setting 'x' must be a whole number, or auto, but is 'aut'");
}

TEST(Setting, WrongTextsSayWhatMustBe) {
  const Setting ffn = ranged(Type::Integer, 1, 65536, "channels");
  EXPECT_EQ(refused(ffn, "0"),
            "error: the setting 'x' must be a whole number from 1 to 65536 channels, but is '0'");
  EXPECT_EQ(refused(ffn, "12.5"),
            "error: the setting 'x' must be a whole number from 1 to 65536 channels, but is '12.5'");
  EXPECT_EQ(refused(ffn, "1_280"),
            "error: the setting 'x' must be a whole number from 1 to 65536 channels, but is '1_280'\nhint: "
            "write 1280");
  EXPECT_EQ(refused(ffn, "010"),
            "error: the setting 'x' must be a whole number from 1 to 65536 channels, but is '010'\n"
            "hint: write 10; a leading zero means octal to some readers");
  EXPECT_EQ(refused(ffn, "2k"),
            "error: the setting 'x' must be a whole number from 1 to 65536 channels, but is '2k'\nhint: "
            "write 2000");
  EXPECT_EQ(
      refused(ffn, "9223372036854775808"),
      "error: the setting 'x' must be a whole number from 1 to 65536 channels, but is '9223372036854775808'");
  EXPECT_EQ(refused(ranged(Type::Number, 0, 1), "1.5"),
            "error: the setting 'x' must be a number from 0 to 1, but is '1.5'");
  EXPECT_EQ(refused(make(Type::Number), "nan"), "error: the setting 'x' must be a number, but is 'nan'");
  EXPECT_EQ(refused(make(Type::Number), "1e999"), "error: the setting 'x' must be a number, but is '1e999'");
  EXPECT_EQ(refused(make(Type::Count), "1.5"),
            "error: the setting 'x' must be a count such as 500, 60k or 1.6M, but is '1.5'");
  EXPECT_EQ(refused(make(Type::Count), "-1"),
            "error: the setting 'x' must be a count such as 500, 60k or 1.6M, but is '-1'");
  EXPECT_EQ(refused(make(Type::Bytes), "80Mb"),
            "error: the setting 'x' must be a size such as 80MB or 1.5GiB, but is '80Mb'");
  EXPECT_EQ(refused(make(Type::Bytes), "99999999TB"),
            "error: the setting 'x' must be a size such as 80MB or 1.5GiB, but is '99999999TB'");
  EXPECT_EQ(refused(make(Type::Boolean), "no"),
            "error: the setting 'x' must be true or false, but is 'no'\nhint: write false");
  EXPECT_EQ(refused(make(Type::Boolean), "on"),
            "error: the setting 'x' must be true or false, but is 'on'\nhint: write true");
  EXPECT_EQ(refused(choice(), "magnitud"),
            "error: the setting 'x' must be one of wanda, magnitude, but is 'magnitud'\nhint: did you mean "
            "'magnitude'?");
  EXPECT_EQ(refused(choice(), "zzzzzzzzz"),
            "error: the setting 'x' must be one of wanda, magnitude, but is 'zzzzzzzzz'");
  EXPECT_EQ(refused(make(Type::Path), ""), "error: the setting 'x' must be a path, but is empty");
  EXPECT_EQ(refused(make(Type::Integers), "3,,4"),
            "error: the setting 'x' must be a list of whole numbers such as 3,4,5 or 3-5, but is '3,,4'");
  EXPECT_EQ(refused(make(Type::Integers), "5-3"),
            "error: the setting 'x' must be a list of whole numbers such as 3,4,5 or 3-5, but is '5-3'");
  EXPECT_EQ(refused(ranged(Type::Integers, 0, 29, "layers"), "3,40"),
            "error: the setting 'x' must be a list of whole numbers such as 3,4,5 or 3-5, each from 0 to 29 "
            "layers, but is '3,40'");
}

TEST(Setting, HugeRangesAreRefusedBeforeTheyAreSpelledOut) {
  EXPECT_EQ(refused(make(Type::Integers), "0-9223372036854775807"),
            "error: the setting 'x' must be a list of whole numbers such as 3,4,5 or 3-5, but is a list of "
            "more than 1048576 numbers");
  EXPECT_EQ(refused(make(Type::Integers), "0-1048570,0-1048570").substr(0, 24), "error: the setting 'x' m");
}

TEST(Setting, WrongJsonKindsAreNamed) {
  const auto text = [](Type type, const char* json) {
    return error_text([&] { value_from_json(make(type), Json::parse(json)); });
  };
  EXPECT_EQ(text(Type::Integer, "{}"),
            "error: the setting 'x' must be a whole number, but is a group of keys");
  EXPECT_EQ(text(Type::Integer, "[1]"), "error: the setting 'x' must be a whole number, but is a list");
  EXPECT_EQ(text(Type::Integer, "null"), "error: the setting 'x' must be a whole number, but is empty");
  EXPECT_EQ(text(Type::Integer, "3.5"), "error: the setting 'x' must be a whole number, but is '3.5'");
  EXPECT_EQ(text(Type::Integer, "true"), "error: the setting 'x' must be a whole number, but is 'true'");
  EXPECT_EQ(text(Type::Boolean, "1"), "error: the setting 'x' must be true or false, but is '1'");
  EXPECT_EQ(text(Type::Integers, "[[1]]"),
            "error: the setting 'x' must be a list of whole numbers such as 3,4,5 or 3-5, but is a list with "
            "a list");
}

std::vector<Setting> table() {
  return {{.name = "ffn",
           .type = Type::Integer,
           .help = "New width.",
           .required = true,
           .least = 1,
           .most = 4096,
           .unit = "channels"},
          {.name = "criterion",
           .type = Type::Choice,
           .fallback = "wanda",
           .help = "How channels are ranked.",
           .choices = {"wanda", "random"}},
          {.name = "refit", .type = Type::Boolean, .fallback = "true", .help = "Refit what follows."},
          {.name = "align",
           .type = Type::Integer,
           .fallback = "auto",
           .help = "Multiple.",
           .least = 1,
           .may_be_auto = true},
          {.name = "plan", .type = Type::Path, .help = "A plan to replay."}};
}

TEST(Settings, DefaultsAreFilledAndGettersWork) {
  std::vector<Diagnostic> problems;
  const Settings s = parse_settings(table(), Json::parse(R"({"ffn": 1280})"), {}, problems);
  EXPECT_TRUE(problems.empty());
  EXPECT_EQ(s.integer("ffn"), 1280);
  EXPECT_EQ(s.number("ffn"), 1280.0);
  EXPECT_EQ(s.text("criterion"), "wanda");
  EXPECT_TRUE(s.boolean("refit"));
  EXPECT_TRUE(s.is_auto("align"));
  EXPECT_TRUE(s.has("align"));
  EXPECT_FALSE(s.has("plan"));
  EXPECT_FALSE(s.has("nothing"));
  EXPECT_EQ(s.all().at("ffn").from, Value::From::Recipe);
  EXPECT_EQ(s.all().at("refit").from, Value::From::Default);
  EXPECT_EQ(s.all().at("align").from, Value::From::Auto);
  EXPECT_EQ(to_json(s).dump(), R"({"align":"auto","criterion":"wanda","ffn":1280,"refit":true})");
  EXPECT_EQ(error_text([&] { s.text("ffn"); }).find("error: a bug in slmc") != std::string::npos, true);
}

TEST(Settings, AllProblemsAtOnceWithPlaces) {
  std::vector<Diagnostic> problems;
  const auto place = [](std::string_view key) {
    return Place{"r.yaml", static_cast<int>(key.size()) + 1, 1, 1, {}};
  };
  parse_settings(table(), Json::parse(R"({"criterian": "wanda", "refit": "no", "align": 0})"), place,
                 problems);
  const std::string text = error_text([&] { throw Error(ErrorKind::Recipe, problems); });
  EXPECT_EQ(
      text,
      "r.yaml:1:1: error: the setting 'ffn' must be a whole number from 1 to 4096 channels, but is missing\n"
      "r.yaml:6:1: error: the setting 'refit' must be true or false, but is 'no'\nhint: write false\n"
      "r.yaml:6:1: error: the setting 'align' must be a whole number of at least 1, or auto, but is '0'\n"
      "r.yaml:10:1: error: unknown setting 'criterian'\nhint: did you mean 'criterion'?");
}

TEST(Settings, NotAnObject) {
  std::vector<Diagnostic> problems;
  parse_settings(table(), Json::parse("[1]"), {}, problems);
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_EQ(problems[0].message, "the settings must be a group of keys, but are a list");
}

TEST(Settings, CanonicalJsonReadsBackEqual) {
  std::vector<Diagnostic> problems;
  std::vector<Setting> all = table();
  all.push_back({.name = "lr", .type = Type::Number, .help = "Rate."});
  all.push_back({.name = "list", .type = Type::Integers, .help = "Layers."});
  all.push_back({.name = "tokens", .type = Type::Count, .help = "Tokens."});
  all.push_back({.name = "data", .type = Type::Data, .help = "Data."});
  const Settings s = parse_settings(
      all, Json::parse(R"({"ffn":3,"lr":"3.0e-4","list":"1-3","tokens":"60k","data":{"files":["a"]}})"), {},
      problems);
  ASSERT_TRUE(problems.empty());
  const Json once = to_json(s);
  EXPECT_EQ(
      once.dump(),
      R"({"align":"auto","criterion":"wanda","data":{"files":["a"]},"ffn":3,"list":[1,2,3],"lr":0.0003,"refit":true,"tokens":60000})");
  EXPECT_EQ(to_json(parse_settings(all, once, {}, problems)).dump(), once.dump());
  EXPECT_TRUE(problems.empty());
}

// A small draft-7 judge of the words that our schemas use; written from the specification, shares nothing
// with the writer.
bool fits(const Json& schema, const Json& value) {
  if (schema.contains("anyOf")) {
    bool any = false;
    for (const Json& one : schema["anyOf"]) any = any || fits(one, value);
    return any;
  }
  if (schema.contains("const")) return schema["const"] == value;
  if (schema.contains("enum"))
    return std::find(schema["enum"].begin(), schema["enum"].end(), value) != schema["enum"].end();
  const std::string type = schema["type"].is_string() ? schema["type"].get<std::string>() : "";
  if (type == "object") {
    for (const auto& [key, item] : value.items()) {
      if (!schema["properties"].contains(key) || !fits(schema["properties"][key], item)) return false;
    }
    for (const Json& name : schema.value("required", Json::array())) {
      if (!value.contains(name.get<std::string>())) return false;
    }
    return true;
  }
  if (type == "integer" && !value.is_number_integer()) return false;
  if (type == "number" && !value.is_number()) return false;
  if (type == "boolean" && !value.is_boolean()) return false;
  if (type == "string" && !value.is_string()) return false;
  if (schema.contains("minimum") && value.get<double>() < schema["minimum"].get<double>()) return false;
  if (schema.contains("maximum") && value.get<double>() > schema["maximum"].get<double>()) return false;
  return true;
}

TEST(Schema, AcceptsWhatTheParserAcceptsAndRefusesWhatItRefuses) {
  const Json schema = json_schema(table());
  EXPECT_EQ(schema["properties"]["ffn"]["description"], "New width. In channels.");
  EXPECT_EQ(schema["properties"]["criterion"]["default"], "wanda");
  EXPECT_EQ(schema["properties"]["refit"]["default"], true);
  EXPECT_EQ(schema["additionalProperties"], false);
  for (const char* text :
       {R"({"ffn":1280})", R"({"ffn":1280,"align":"auto"})", R"({"ffn":1,"align":64,"refit":false})", R"({})",
        R"({"ffn":0})", R"({"ffn":5000})", R"({"ffn":1,"criterion":"x"})", R"({"ffn":1,"unknown":1})",
        R"({"ffn":1,"refit":3})", R"({"ffn":1,"align":"automatic"})"}) {
    std::vector<Diagnostic> problems;
    parse_settings(table(), Json::parse(text), {}, problems);
    EXPECT_EQ(fits(schema, Json::parse(text)), problems.empty()) << text;
  }
}

TEST(Help, ColumnsAndWrapping) {
  EXPECT_EQ(help_text(table(), 60),
            "  --ffn N             New width. (1 to 4096 channels;\n"
            "                      required)\n"
            "  --criterion WORD    How channels are ranked. (wanda,\n"
            "                      random; default wanda)\n"
            "  --refit true|false  Refit what follows. (default true)\n"
            "  --align N           Multiple. (at least 1; or auto;\n"
            "                      default auto)\n"
            "  --plan PATH         A plan to replay.\n");
}

StageInfo prune() {
  return {
      .name = "prune",
      .summary = "cut the width",
      .needs = {.calib = false},
      .output = "hf",
      .settings = table(),
      .methods = {{.setting = "criterion",
                   .name = "wanda",
                   .summary = "weight times activation",
                   .paper = "Sun et al. 2023",
                   .needs = {.calib = true}},
                  {.setting = "criterion", .name = "random", .summary = "by lot", .paper = "", .needs = {}}}};
}

TEST(Registry, NeedsFollowTheMethod) {
  Registry registry;
  registry.add(prune());
  ASSERT_NE(registry.find("prune"), nullptr);
  EXPECT_EQ(registry.find("prone"), nullptr);
  EXPECT_EQ(registry.names(), std::vector<std::string>{"prune"});
  std::vector<Diagnostic> problems;
  const StageInfo& info = *registry.find("prune");
  EXPECT_TRUE(needs_of(info, parse_settings(info.settings, Json::parse(R"({"ffn":1})"), {}, problems)).calib);
  EXPECT_FALSE(needs_of(info, parse_settings(info.settings, Json::parse(R"({"ffn":1,"criterion":"random"})"),
                                             {}, problems))
                   .calib);
  EXPECT_EQ(output_of(info, {}), "hf");
}

TEST(Registry, TablesThatContradictThemselvesAreBugs) {
  Registry registry;
  registry.add(prune());
  EXPECT_THROW(registry.add(prune()), Error);  // twice
  StageInfo bad = prune();
  bad.name = "other";
  bad.settings[1].fallback = "wando";  // a default that its own type refuses
  EXPECT_THROW(registry.add(bad), Error);
  bad = prune();
  bad.name = "other";
  bad.methods[0].name = "taylor";  // a method that no choice names
  EXPECT_THROW(registry.add(bad), Error);
  bad = prune();
  bad.name = "other";
  bad.effects = {{Effect::Kind::Resize, "width", "ffn"}};  // an effect of no setting
  EXPECT_THROW(registry.add(bad), Error);
}

TEST(Registry, TheMeasuringOpsAreSound) {
  Registry registry;
  for (const StageInfo* info : {&eval_info(), &bench_info(), &generate_info(), &chat_info(), &doctor_info()})
    registry.add(*info);
  EXPECT_EQ(registry.all().size(), 5u);
}

TEST(Reference, HoldsEverySettingAndMethod) {
  Registry registry;
  registry.add(prune());
  EXPECT_EQ(settings_reference(registry),
            "# Stages and their settings\n\nMade by `slmc help settings` from the tables that the program "
            "itself reads.\n\n"
            "## prune\n\ncut the width.\n\n"
            "| setting | value | default | meaning |\n|---|---|---|---|\n"
            "| `ffn` | N, 1 to 4096 channels | required | New width. |\n"
            "| `criterion` | `wanda`, `random` | `wanda` | How channels are ranked. |\n"
            "| `refit` | true\\|false | `true` | Refit what follows. |\n"
            "| `align` | N, at least 1, or `auto` | `auto` | Multiple. |\n"
            "| `plan` | PATH |  | A plan to replay. |\n\n"
            "| method | what it does | needs | paper |\n|---|---|---|---|\n"
            "| `criterion: wanda` | weight times activation | `data.calib` | Sun et al. 2023 |\n"
            "| `criterion: random` | by lot |  |  |\n");
}

TEST(Job, SurvivesTheTrip) {
  std::vector<Diagnostic> problems;
  Job job;
  job.op = "prune";
  job.model = "/a/model";
  job.out = "/a/out";
  job.settings = parse_settings(table(), Json::parse(R"({"ffn":1280,"align":32})"), {}, problems);
  job.models = {{"teacher", "/a/teacher"}};
  job.data = std::make_shared<const Json>(Json::parse(R"({"calib":{"files":["/c"],"seq":512}})"));
  job.seed = 18446744073709551615ull;
  job.device = "cuda:1";
  job.threads = 3;
  job.max_ram = 1ull << 33;
  job.gemm = "onednn";
  job.cache = "/cache";
  job.resume = "/resume";
  const Json json = to_json(job);
  const Job back = job_from_json(parse_json(dump_compact(json), "job", ErrorKind::Internal), table());
  EXPECT_EQ(to_json(back).dump(), json.dump());
  EXPECT_EQ(back.settings.integer("ffn"), 1280);
  EXPECT_EQ(back.seed, job.seed);
}

TEST(Job, MalformedJobsAreOurBugs) {
  const auto kind = [](const char* text) {
    try {
      job_from_json(Json::parse(text), table());
    } catch (const Error& error) {
      return std::string(to_string(error.kind())) + ": " + error.message();
    }
    return std::string("accepted");
  };
  EXPECT_EQ(kind("{}").substr(0, 10), "internal: ");
  EXPECT_EQ(kind(R"({"slmc_job":2,"op":"prune","settings":{"ffn":1}})").substr(0, 10), "internal: ");
  EXPECT_EQ(kind(R"({"slmc_job":1,"op":"prune","settings":{}})"),
            "internal: the setting 'ffn' must be a whole number from 1 to 4096 channels, but is missing");
  EXPECT_EQ(kind(R"({"slmc_job":1,"op":"prune","settings":{"ffn":1},"colour":1})").substr(0, 10),
            "internal: ");
  EXPECT_EQ(kind(R"({"slmc_job":1,"op":"prune","settings":{"ffn":1}})"), "accepted");
}

TEST(ErrorEvent, SurvivesTheTrip) {
  Error error(ErrorKind::Numeric,
              {{"the loss must be finite, but is NaN", {"m.gguf", 3, 4, 5, "the line"}, "lower lr"},
               {"second", {}, {}}});
  error.while_doing("while training step 7");
  const Error back = error_from_event(error_event(error));
  EXPECT_EQ(back.text(), error.text());
  EXPECT_EQ(back.kind(), ErrorKind::Numeric);
}

TEST(ErrorEvent, HalfAnEventIsStillAnError) {
  for (const char* text : {"{}", "[]", "3", "null", R"({"kind":"model"})",
                           R"({"kind":7,"diagnostics":[1,{},{"message":3,"line":"x"}],"trail":[1]})",
                           R"({"diagnostics":{"a":1}})", R"({"diagnostics":"text"})"}) {
    EXPECT_FALSE(error_from_event(Json::parse(text)).text().empty()) << text;
  }
  EXPECT_EQ(error_from_event(Json::parse(R"({"kind":"model"})")).kind(), ErrorKind::Model);
}

TEST(Events, HelpersEmitTheDocumentedShape) {
  struct Kept : Events {
    std::vector<std::string> lines;
    void emit(const Json& event) override { lines.push_back(dump_compact(event)); }
  } events;
  events.note("a");
  events.warning("b");
  events.progress("statistics", 3, 30);
  EXPECT_EQ(events.lines,
            (std::vector<std::string>{R"({"event":"note","text":"a"})", R"({"event":"warning","text":"b"})",
                                      R"({"event":"progress","what":"statistics","done":3,"of":30})"}));
}

TEST(Text, WidthsAndWrapping) {
  EXPECT_EQ(display_width("abc"), 3);
  EXPECT_EQ(display_width("naïve"), 5);
  EXPECT_EQ(display_width("e\xCC\x81"), 1);  // e and a combining acute
  EXPECT_EQ(display_width("日本"), 4);
  EXPECT_EQ(display_width("\xFF\xFE"), 2);
  EXPECT_EQ(cut_to("abcdef", 4), "abc…");
  EXPECT_EQ(cut_to("abcd", 4), "abcd");
  EXPECT_EQ(cut_to("日本語", 4), "日…");
  EXPECT_EQ(wrap("aa bb cc dd", 5), "aa bb\ncc dd");
  EXPECT_EQ(wrap("aa bb cc", 5, 2), "aa bb\n  cc");
  EXPECT_EQ(wrap("averyverylongword x", 5), "averyverylongword\nx");
  EXPECT_EQ(wrap("", 5), "");
}

}  // namespace
}  // namespace slmc::stage
