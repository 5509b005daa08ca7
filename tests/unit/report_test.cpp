// lib/report: tables as terminals show them, pictures with the same bytes for the same data, and a page that
// stands alone.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/file.h"
#include "core/text.h"
#include "report/html.h"
#include "report/svg.h"
#include "report/sweep.h"

namespace slmc::report {
namespace {

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) ++n;
  return n;
}

// Whether every element of our markup is closed in order: a reader of tags that knows nothing of the writer.
std::string unbalanced(const std::string& text) {
  static const std::vector<std::string> empty = {"meta", "br"};
  std::vector<std::string> open;
  for (std::size_t at = 0; (at = text.find('<', at)) != std::string::npos; ++at) {
    const std::size_t end = text.find('>', at);
    if (end == std::string::npos) return "unclosed tag";
    const std::string tag = text.substr(at + 1, end - at - 1);
    if (tag.starts_with("!") || tag.ends_with("/")) continue;
    const std::string name = tag.substr(tag.starts_with("/") ? 1 : 0,
                                        tag.find_first_of(" \n", 1) - (tag.starts_with("/") ? 1 : 0));
    if (std::find(empty.begin(), empty.end(), name) != empty.end()) continue;
    if (!tag.starts_with("/")) {
      open.push_back(name);
      if (name == "style") at = text.find("</style>", at) - 1;
    } else if (open.empty() || open.back() != name) {
      return "</" + name + "> closes <" + (open.empty() ? "" : open.back()) + ">";
    } else {
      open.pop_back();
    }
  }
  return open.empty() ? "" : "<" + open.back() + "> stays open";
}

TEST(Table, ColumnsAreAsWideAsTheirTextAndNumbersStandRight) {
  const Table table{{"stage", "size", "ppl"}, {{"model", "98.4 MB", "22.10"}, {"ü", "7 B", "–"}}, {}};
  EXPECT_EQ(render(table),
            "stage     size    ppl\n"
            "model  98.4 MB  22.10\n"
            "ü          7 B      –\n");
  EXPECT_EQ(render(table, {.plain = true}), "stage\tsize\tppl\nmodel\t98.4 MB\t22.10\nü\t7 B\t–\n");
  EXPECT_TRUE(render(table, {.bold_titles = true}).starts_with("\x1b[1mstage     size    ppl\x1b[0m\n"));
  EXPECT_EQ(render({{"a"}, {}, {}}), "a\n");
}

TEST(Table, TooWideTablesLoseTextNotNumbers) {
  const Table table{{"path", "size"}, {{"a/very/long/path/to/something", "12.5 MB"}}, {}};
  EXPECT_EQ(render(table, {.width = 24}),
            "path                size\n"
            "a/very/long/pa…  12.5 MB\n");
  EXPECT_EQ(render(table, {.width = 5}), "path         size\na/very/…  12.5 MB\n");
}

TEST(Table, PlainCellsHoldNoTabs) {
  EXPECT_EQ(render({{"a"}, {{"x\ty\nz"}}, {}}, {.plain = true}), "a\nx y z\n");
}

TEST(Ticks, AreRoundAndInside) {
  EXPECT_EQ(ticks(0, 100, Scale::Linear, 5), (std::vector<double>{0, 20, 40, 60, 80, 100}));
  EXPECT_EQ(ticks(-1, 1, Scale::Linear, 4), (std::vector<double>{-1, -0.5, 0, 0.5, 1}));
  EXPECT_EQ(ticks(21.4, 34.6, Scale::Linear, 6), (std::vector<double>{22, 24, 26, 28, 30, 32, 34}));
  EXPECT_EQ(ticks(1, 100, Scale::Log, 6), (std::vector<double>{1, 2, 5, 10, 20, 50, 100}));
  EXPECT_FALSE(std::signbit(ticks(-0.7, 31, Scale::Linear, 6).front()));  // a label once said -0
  EXPECT_TRUE(ticks(1, 1, Scale::Linear, 5).empty());
  EXPECT_TRUE(ticks(0, std::nan(""), Scale::Linear, 5).empty());
  for (const double least : {0.0, 1e-9, 3.7, 1e12}) {
    for (const double span : {1e-6, 0.3, 7.0, 5e9}) {
      if (span < least * 1e-9) continue;  // a double has no numbers between
      const std::vector<double> all = ticks(least, least + span, Scale::Linear, 6);
      ASSERT_GE(all.size(), 3u) << least << " " << span;
      ASSERT_LE(all.size(), 14u);
      for (const double t : all) ASSERT_TRUE(t >= least - span * 1e-6 && t <= least + span * (1 + 1e-6));
    }
  }
}

TEST(Svg, PointsLieWhereTheScaleSays) {
  LineChart chart;
  chart.title = "t";
  chart.x.least = 0;
  chart.x.most = 10;
  chart.y.least = 0;
  chart.y.most = 1;
  chart.width = 184;   // 100 px of plot between margins 64 and 20
  chart.height = 186;  // 100 px between 34 and 52
  chart.series = {{"a", {{0, 0, ""}, {5, 0.25, ""}, {10, 1, ""}}, true, true}};
  const std::string text = svg(chart);
  EXPECT_NE(text.find("M64 134L114 109L164 34"), std::string::npos) << text;
  EXPECT_EQ(count(text, "<circle"), 3u);
  EXPECT_EQ(unbalanced(text), "");
}

TEST(Svg, BadPointsBreakTheLineAndNothingElse) {
  LineChart chart;
  chart.y.scale = Scale::Log;
  chart.series = {{"a",
                   {{1, 10, "first"}, {2, -1, "gone"}, {3, std::nan(""), ""}, {4, 20, "last"}, {5, 30, ""}},
                   true,
                   true}};
  const std::string text = svg(chart);
  EXPECT_EQ(count(text, "<circle"), 3u);
  EXPECT_EQ(text.find("gone"), std::string::npos);
  EXPECT_EQ(text.find("nan"), std::string::npos);
  const std::size_t path = text.find("<path d=\"");
  EXPECT_EQ(count(text.substr(path, text.find("\" style", path) - path), "M"), 2u);
}

TEST(Svg, EmptyAndSinglePointsAreDrawable) {
  for (const std::vector<Point>& points :
       {std::vector<Point>{}, {{1, 1, "one"}}, {{0, 0, "zero"}}, {{-5, 1e12, ""}}}) {
    LineChart chart;
    chart.series = {{"a", points, true, true}};
    const std::string text = svg(chart);
    EXPECT_EQ(unbalanced(text), "");
    EXPECT_EQ(text.find("inf"), std::string::npos);
    EXPECT_EQ(text.find("nan"), std::string::npos);
  }
}

TEST(Svg, LabelsOfNearbyPointsDoNotCoverEachOther) {
  LineChart chart;
  Series series;
  for (int i = 0; i < 4; ++i) series.points.push_back({50.0 + i * 0.1, 20.0, "stage"});
  series.points.push_back({0, 0, ""});
  series.points.push_back({100, 40, ""});
  chart.series = {series};
  const std::string text = svg(chart);
  std::vector<std::pair<double, double>> places;
  for (std::size_t at = 0; (at = text.find(">stage<", at)) != std::string::npos; ++at) {
    const std::size_t tag = text.rfind("<text", at);
    places.emplace_back(std::stod(text.substr(text.find("x=\"", tag) + 3)),
                        std::stod(text.substr(text.find("y=\"", tag) + 3)));
  }
  ASSERT_EQ(places.size(), 4u);
  for (std::size_t i = 0; i < 4; ++i) {
    for (std::size_t k = 0; k < i; ++k) {
      EXPECT_TRUE(std::abs(places[i].first - places[k].first) > 30 ||
                  std::abs(places[i].second - places[k].second) > 12);
    }
  }
}

TEST(Svg, HostileTextIsEscaped) {
  BarChart chart{"<script>alert(1)</script>", "s", {{"a\"b'c&d<e>\x01", 3, "<b>"}}, 300};
  const std::string text = svg(chart);
  EXPECT_EQ(text.find("<script"), std::string::npos);
  EXPECT_EQ(text.find("<b>"), std::string::npos);
  EXPECT_NE(text.find("a&quot;b&#39;c&amp;d&lt;e&gt; "), std::string::npos);
  EXPECT_EQ(unbalanced(text), "");
}

TEST(Svg, BarsAreProportional) {
  const std::string text = svg(
      BarChart{"Time", "", {{"a", 10, "10 s"}, {"b", 5, "5 s"}, {"c", 0, ""}, {"d", std::nan(""), ""}}, 400});
  std::vector<double> widths;
  for (std::size_t at = 0; (at = text.find("<rect", at)) != std::string::npos; ++at)
    widths.push_back(std::stod(text.substr(text.find("width=\"", at) + 7)));
  ASSERT_EQ(widths.size(), 4u);
  EXPECT_NEAR(widths[1] / widths[0], 0.5, 1e-3);
  EXPECT_EQ(widths[2], 0);
  EXPECT_EQ(widths[3], 0);
}

// Four blocks: whole, narrower, without attention, gone.
Kept four_blocks() {
  return {.title = "what is left",
          .blocks = {{.number = 0, .kv = {3, 3}, .heads = {9, 9}, .ffn = {1536, 1536}},
                     {.number = 1, .kv = {2, 3}, .heads = {6, 9}, .ffn = {1280, 1536}},
                     {.number = 2, .kv = {0, 3}, .heads = {0, 9}, .ffn = {1, 1536}},
                     {.number = 3, .there = false, .kv = {0, 3}, .heads = {0, 9}, .ffn = {0, 1536}}},
          .whole = {{"blocks", {3, 4}}, {"vocab", {49151, 49152}}}};
}

TEST(Kept, ALineForEachKindOfBlock) {
  EXPECT_EQ(text(four_blocks()),
            "what is left\n"
            "  blocks  groups  query heads      feed-forward\n"
            "  0          3/3  ██████████  9/9  ████████████████████ 1536/1536\n"
            "  1          2/3  ███████░░░  6/9  █████████████████░░░ 1280/1536\n"
            "  2         gone  ░░░░░░░░░░ gone  █░░░░░░░░░░░░░░░░░░░ 1/1536\n"
            "  3         gone\n"
            "  blocks  ███████████████░░░░░ 3/4\n"
            "  vocab   ███████████████████░ 49151/49152\n");
}

TEST(Kept, NeighboursThatAreAlikeShareALine) {
  Kept kept;
  for (std::int64_t i = 0; i < 6; ++i) kept.blocks.push_back({.number = i, .there = i != 3, .kv = {2, 2}, .heads = {4, 4}, .ffn = {64, 96}});
  const std::string drawn = text(kept);
  EXPECT_NE(drawn.find("\n  0-2 "), std::string::npos) << drawn;
  EXPECT_NE(drawn.find("\n  3         gone\n"), std::string::npos) << drawn;
  EXPECT_NE(drawn.find("\n  4-5 "), std::string::npos) << drawn;
  kept.blocks[3].there = true;
  kept.blocks[5].there = kept.which_known = false;
  EXPECT_NE(text(kept).find("\n  5 of 6 "), std::string::npos) << text(kept);
  EXPECT_NE(text(kept).find("\n  1 of 6    gone\n"), std::string::npos) << text(kept);
}

TEST(Kept, LargestModelsFitEightyColumnsWithWidthsOfTheirOwn) {
  Kept kept;
  for (std::int64_t i = 0; i < 130; ++i) kept.blocks.push_back({.number = i, .kv = {100 + i % 28, 128}, .heads = {100 + i % 28, 128}, .ffn = {100000 + i, 131072}});
  kept.whole = {{"blocks", {130, 130}}, {"hidden", {16384, 16384}}, {"vocab", {262144, 262144}}};
  std::istringstream lines(text(kept));
  std::size_t n = 0;
  for (std::string line; std::getline(lines, line); ++n) EXPECT_LE(display_width(line), 80) << line;
  EXPECT_EQ(n, 2u + 130 + 3);
}

TEST(Kept, NothingWentOnlyWhenEverythingIsThere) {
  Kept kept = {.blocks = {{.kv = {2, 2}, .heads = {4, 4}, .ffn = {8, 8}}}, .whole = {{"vocab", {5, 5}}}};
  EXPECT_FALSE(anything_went(kept));
  kept.whole[0].second.now = 4;
  EXPECT_TRUE(anything_went(kept));
  kept.whole.clear();
  kept.blocks[0].heads.now = 2;
  EXPECT_TRUE(anything_went(kept));
}

TEST(Kept, SvgFillsEachCellByItsShareAndCrossesOutWhatWent) {
  const std::string drawn = svg(four_blocks());
  EXPECT_EQ(unbalanced(drawn), "");
  EXPECT_EQ(drawn, svg(four_blocks()));
  EXPECT_EQ(count(drawn, "class=\"limit\""), 5u);                 // three lanes of block 3, two of block 2
  EXPECT_NE(drawn.find("<title>block 1: feed-forward 1280 of 1536</title>"), std::string::npos);
  EXPECT_NE(drawn.find("<title>block 2: query heads gone</title>"), std::string::npos);
  EXPECT_NE(drawn.find("<title>block 3: gone</title>"), std::string::npos);
  std::vector<double> heights;                                    // of the feed-forward lane: outline, filling, outline, filling ...
  for (std::size_t at = 0; (at = drawn.find("<rect", at)) != std::string::npos && heights.size() < 4; ++at)
    heights.push_back(std::stod(drawn.substr(drawn.find("height=\"", at) + 8)));
  EXPECT_EQ(heights[0], heights[1]);
  EXPECT_NEAR(heights[3] / heights[2], 1280.0 / 1536, 1e-3);
}

TEST(Metrics, TitlesAndTexts) {
  EXPECT_EQ(metric_title("ppl"), "perplexity");
  EXPECT_EQ(metric_title("acc:hellaswag"), "acc (hellaswag)");
  EXPECT_EQ(metric_title("other"), "other");
  EXPECT_EQ(metric_text("ppl", 22.104), "22.10");
  EXPECT_EQ(metric_text("ppl", 123456.7), "123457");
  EXPECT_EQ(metric_text("kl", 0.12345), "0.123");
  EXPECT_EQ(metric_text("top1_agreement", 0.821), "82.1 %");
  EXPECT_EQ(metric_text("file_bytes", 98362432), "98.4 MB");
  EXPECT_EQ(metric_text("parameters", 134515008), "134.5 M");
  EXPECT_EQ(metric_text("seconds", 192), "3 min 12 s");
  EXPECT_EQ(metric_text("ppl", std::nan("")), "–");
}

Report sample() {
  Report r;
  r.name = "smollm2-to-go";
  r.finished = "2026-11-23 14:02";
  r.seconds = 803;
  r.rows = {{"model",
             "",
             "gguf",
             false,
             134515008,
             98362432,
             {{"ppl", 22.10}, {"ppl:wiki.test", 22.10}, {"kl", 0}, {"top1_agreement", 1}},
             {},
             {},
             "m.gguf"},
            {"depth",
             "drop",
             "hf",
             true,
             123.9e6,
             247.8e6,
             {{"ppl", 27.4}, {"ppl:wiki.test", 27.4}, {"kl", 0.21}, {"top1_agreement", 0.74}},
             92.0,
             1.1e9,
             "work/01"},
            {"width",
             "prune",
             "hf",
             false,
             110.1e6,
             220.2e6,
             {{"ppl", 33.9}, {"ppl:wiki.test", 33.9}, {"kl", 0.40}, {"top1_agreement", 0.66}},
             61.0,
             1.4e9,
             "work/02"},
            {"heal",
             "distill",
             "hf",
             false,
             110.1e6,
             220.2e6,
             {{"ppl", 27.9}, {"ppl:wiki.test", 27.9}, {"kl", 0.23}, {"top1_agreement", 0.73}},
             540.0,
             2.9e9,
             "work/03"},
            {"int4",
             "quantize",
             "gguf",
             false,
             110.1e6,
             74.9e6,
             {{"ppl", 29.3}, {"ppl:wiki.test", 29.3}, {"kl", 0.27}, {"top1_agreement", 0.71}},
             110.0,
             1.9e9,
             "work/04"}};
  r.gates = {{"ppl_ratio", "at most 2", "1.326", true, {}, 2.0},
             {"file_bytes", "at most 72 MB", "74.9 MB", false, {}, 72e6}};
  r.environment = {{"slmc", "0.1.0"}, {"torch", "2.13.0"}, {"kernel path", "onednn"}};
  r.recipe = "slmc: 1\nname: smollm2-to-go  # <&>\n";
  r.warnings = {"the data 'books' is used by no stage"};
  return r;
}

TEST(Html, StandsAloneAndIsWellFormed) {
  Report r = sample();
  const Json lineage = Json::parse(
      R"([{"id":"depth","stage":"drop","key":"1a2b3c4d5e","settings":{"layers":3,"note":"<i>"},"versions":{"torch":"2.13.0"}}, 7])");
  r.lineage = &lineage;
  r.kept = four_blocks();
  const std::string page = html(r);
  EXPECT_EQ(unbalanced(page), "");
  EXPECT_EQ(page, html(r));
  for (const char* outside : {"<script", "http-equiv", "<link", "@import", "src=", "url(", "href="})
    EXPECT_EQ(page.find(outside), std::string::npos) << outside;
  EXPECT_EQ(count(page, "http://"), count(page, "http://www.w3.org/2000/svg"));
  EXPECT_NE(page.find("prefers-color-scheme:dark"), std::string::npos);
  EXPECT_NE(page.find("width=device-width"), std::string::npos);
  EXPECT_NE(page.find("✓ met"), std::string::npos);
  EXPECT_NE(page.find("✗ not met"), std::string::npos);
  EXPECT_NE(page.find("0.76 × the original"), std::string::npos);
  EXPECT_NE(page.find("# &lt;&amp;&gt;"), std::string::npos);
  EXPECT_NE(page.find("&lt;i&gt;"), std::string::npos);
  EXPECT_NE(page.find("gate: at most 72 MB"), std::string::npos);
  EXPECT_EQ(count(page, "<svg"), 3u);
  for (const ReportRow& row : r.rows) EXPECT_NE(page.find("<td>" + row.id + "</td>"), std::string::npos);
  if (const char* path = std::getenv("SLMC_WRITE_REPORT")) write_text(path, page);  // to look at it
}

TEST(Html, AlmostEmptyReportsAreStillPages) {
  Report r;
  r.name = "x";
  EXPECT_EQ(unbalanced(html(r)), "");
  r.rows = {{"model", "", "hf", false, 1, 2, {}, {}, {}, ""}};
  const std::string page = html(r);
  EXPECT_EQ(unbalanced(page), "");
  EXPECT_EQ(count(page, "<svg"), 0u);
}

TEST(RunTable, OneColumnPerTaskOnlyWhenThereAreSeveral) {
  Report r = sample();
  EXPECT_EQ(run_table(r).titles,
            (std::vector<std::string>{"stage", "does", "parameters", "size", "perplexity", "KL, nats",
                                      "top-1", "time", "peak memory"}));
  EXPECT_EQ(run_table(r).rows[1],
            (std::vector<std::string>{"depth", "drop (reused)", "123.9 M", "247.8 MB", "27.40", "0.210",
                                      "74.0 %", "1 min 32 s", "1.1 GB"}));
  EXPECT_EQ(run_table(r).rows[0].back(), "–");
  r.rows[0].metrics["ppl:books"] = 31;
  r.metric_order = {"ppl"};
  EXPECT_EQ(run_table(r).titles,
            (std::vector<std::string>{"stage", "does", "parameters", "size", "perplexity (books)",
                                      "perplexity (wiki.test)", "time", "peak memory"}));
  EXPECT_EQ(run_table(r).rows[1][4], "–");
}

// Two seeds of two depths and one kind, written out by hand.
SweepReport a_sweep() {
  SweepReport out{.name = "depths", .finished = "2026-01-02 03:04", .seconds = 61, .keys = {"cut.keep_first", "tune.classifier", "seed"}, .rows = {},
                  .environment = {{"torch", "2.13.0"}}, .recipe = "slmc: 1", .warnings = {}};
  const auto add = [&](const char* blocks, const char* seed, double accuracy, double parameters) {
    ReportRow last{.id = "tune", .use = "train", .container = "hf", .reused = false, .parameters = parameters, .file_bytes = 4 * parameters,
                   .metrics = {{"accuracy", accuracy}, {"latency", 0.0125}, {"memory", 2e8}}, .path = "work/a, b"};
    last.seconds = 10, last.peak_bytes = 3e8;
    out.rows.push_back({{blocks, "head", seed}, std::move(last)});
  };
  add("12", "1", 0.50, 2e6), add("12", "2", 0.60, 2e6), add("4", "1", 0.30, 1e6), add("4", "2", 0.30, 1e6);
  return out;
}

TEST(Sweep, SeedsBecomeOneRowWithTheirDeviation) {
  const std::vector<SweepMean> rows = over_seeds(a_sweep());
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].values, (std::vector<std::string>{"12", "head"}));
  EXPECT_EQ(rows[0].seeds, 2);
  EXPECT_NEAR(rows[0].mean.metrics.at("accuracy"), 0.55, 1e-12);
  EXPECT_NEAR(rows[0].deviation.at("accuracy"), 0.1 / std::sqrt(2.0), 1e-12);
  EXPECT_EQ(rows[1].deviation.at("accuracy"), 0);
  EXPECT_EQ(render(sweep_table(a_sweep()), {}),
            "cut.keep_first  tune.classifier  seeds  parameters    size        accuracy  latency    memory    time  peak memory\n"
            "            12  head                 2       2.0 M  8.0 MB  55.0 % ± 7.1 %  12.5 ms  200.0 MB  10.0 s     300.0 MB\n"
            "             4  head                 2       1.0 M  4.0 MB          30.0 %  12.5 ms  200.0 MB  10.0 s     300.0 MB\n");
}

TEST(Sweep, AMeanNeedsEverySeed) {
  SweepReport report = a_sweep();
  report.rows[1].last.metrics.erase("accuracy");
  EXPECT_FALSE(over_seeds(report)[0].mean.metrics.contains("accuracy"));
}

TEST(Sweep, CsvHasEveryRowAndQuotesCommas) {
  const std::string csv = sweep_csv(a_sweep());
  EXPECT_TRUE(csv.starts_with("cut.keep_first,tune.classifier,seed,accuracy,file_bytes,latency,memory,parameters,peak_bytes,seconds,path\n"
                              "12,head,1,0.5,8000000,0.0125,200000000,2000000,300000000,10,\"work/a, b\"\n"))
      << csv;
  EXPECT_EQ(count(csv, "\n"), 5u);
}

TEST(Sweep, ThePageHasAPictureOfEachNumberAndIsClosed) {
  const std::string page = html(a_sweep());
  EXPECT_EQ(unbalanced(page), "");
  EXPECT_EQ(count(page, "<svg"), 5u);                      // accuracy, latency, memory, parameters, size
  for (const char* title : {"accuracy over cut.keep_first", "latency over cut.keep_first", "memory over cut.keep_first", "parameters over cut.keep_first"}) {
    EXPECT_NE(page.find(title), std::string::npos) << title;
  }
  EXPECT_EQ(html(a_sweep()), page);
  SweepReport words = a_sweep();
  for (SweepRow& row : words.rows) row.values[0] = row.values[0] == "12" ? "wanda" : "magnitude";
  EXPECT_EQ(unbalanced(html(words)), "");                  // no number to draw over: bars
  EXPECT_EQ(count(html(words), "<svg"), 5u);
}

}  // namespace
}  // namespace slmc::report
