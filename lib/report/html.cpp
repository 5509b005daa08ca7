#include "report/html.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/units.h"
#include "report/svg.h"

namespace slmc::report {
namespace {

constexpr std::string_view kPageStyle = R"(
:root{color-scheme:light dark;--bg:#ffffff;--card:#f6f8fa;--ink:#1c2128;--soft:#57606a;--line:#d8dee4;--good:#15803d;--bad:#b91c1c;--warn:#9a6700}
@media (prefers-color-scheme:dark){:root{--bg:#0d1117;--card:#161b22;--ink:#e6edf3;--soft:#9aa4af;--line:#30363d;--good:#5fd38d;--bad:#ff8080;--warn:#e3b341}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:68rem;padding:1.25rem;background:var(--bg);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.6rem;margin:0 0 .25rem}h2{font-size:1.15rem;margin:2rem 0 .6rem}p{margin:.4rem 0}.soft{color:var(--soft)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr));gap:.75rem;margin:1rem 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.7rem .9rem}
.tile b{display:block;font-size:1.35rem;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto;border:1px solid var(--line);border-radius:.5rem}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{padding:.4rem .7rem;text-align:left;white-space:nowrap;border-bottom:1px solid var(--line)}
tr:last-child td{border-bottom:0}th{background:var(--card);font-weight:600}.n{text-align:right}
.good{color:var(--good);font-weight:600}.bad{color:var(--bad);font-weight:600}
.warn{border-left:4px solid var(--warn);background:var(--card);padding:.5rem .8rem;margin:.4rem 0;border-radius:.25rem}
details{border:1px solid var(--line);border-radius:.5rem;padding:.4rem .8rem;margin:.4rem 0}summary{cursor:pointer}
pre{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.8rem;font:13px/1.45 ui-monospace,monospace}
.pic{overflow-x:auto}.pic svg{display:block;margin:.5rem 0;min-width:30rem}
@media print{details{break-inside:avoid}body{max-width:none}}
)";

std::string cell(std::string_view tag, const std::string& text, bool number, std::string_view extra = "") {
  return fmt::format("<{}{}{}>{}</{}>", tag, number ? " class=\"n\"" : "", extra, escape_xml(text), tag);
}

std::string tile(const std::string& name, const std::string& value, const std::string& note) {
  return fmt::format(
      "<div class=\"tile\"><span class=\"soft\">{}</span><b>{}</b><span class=\"soft\">{}</span></div>\n",
      escape_xml(name), escape_xml(value), escape_xml(note));
}

std::optional<double> metric_of(const ReportRow& row, const std::string& name) {
  const auto it = row.metrics.find(name);
  return it == row.metrics.end() || !std::isfinite(it->second) ? std::nullopt : std::optional(it->second);
}

std::string times(double value, double of) {
  return of > 0 ? fmt::format("{:.2f} × the original", value / of) : "";
}

// What became of the model, in four numbers.
std::string summary(const Report& report) {
  if (report.rows.size() < 2) return {};
  const ReportRow& first = report.rows.front();
  const ReportRow& last = report.rows.back();
  std::string out = "<div class=\"tiles\">\n";
  out += tile("size", metric_text("file_bytes", last.file_bytes), times(last.file_bytes, first.file_bytes));
  out += tile("parameters", metric_text("parameters", last.parameters),
              times(last.parameters, first.parameters));
  const auto before = metric_of(first, report.quality_metric), after = metric_of(last, report.quality_metric);
  if (after)
    out += tile(metric_title(report.quality_metric), metric_text(report.quality_metric, *after),
                before ? times(*after, *before) : "");
  if (const auto kl = metric_of(last, "kl"))
    out += tile(metric_title("kl"), metric_text("kl", *kl), "from the reference, per token");
  return out + "</div>\n";
}

std::string gates(const Report& report) {
  if (report.gates.empty()) return {};
  std::string out =
      "<h2>Gates</h2>\n<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">metric</th><th "
      "scope=\"col\">must be</th>"
      "<th scope=\"col\" class=\"n\">is</th><th scope=\"col\">result</th></tr></thead>\n<tbody>\n";
  for (const ReportGate& gate : report.gates) {
    out +=
        fmt::format("<tr>{}{}{}<td class=\"{}\">{}</td></tr>\n", cell("td", metric_title(gate.metric), false),
                    cell("td", gate.limit, false), cell("td", gate.value, true), gate.met ? "good" : "bad",
                    gate.met ? "✓ met" : "✗ not met");
  }
  return out + "</tbody></table></div>\n";
}

std::string quality_picture(const Report& report) {
  LineChart chart;
  chart.title = fmt::format("{} against size, stage by stage", metric_title(report.quality_metric));
  chart.x = {.title = "size on disk, MB", .scale = Scale::Linear, .least = {}, .most = {}};
  chart.y = {.title = metric_title(report.quality_metric), .scale = Scale::Linear, .least = {}, .most = {}};
  chart.width = 640;
  chart.height = 380;
  Series series;
  for (const ReportRow& row : report.rows) {
    if (const auto quality = metric_of(row, report.quality_metric))
      series.points.push_back({row.file_bytes / 1e6, *quality, row.id});
  }
  if (series.points.size() < 2) return {};
  const auto [low, high] = std::minmax_element(series.points.begin(), series.points.end(),
                                               [](const Point& a, const Point& b) { return a.y < b.y; });
  if (low->y > 0 && high->y / low->y > 20)
    chart.y.scale = Scale::Log;  // a ruined stage must not flatten the others
  for (const ReportGate& gate : report.gates) {
    const bool size = gate.metric == "file_bytes";
    if (!size && gate.metric != report.quality_metric) continue;
    for (const auto& limit : {gate.least, gate.most}) {
      if (limit) chart.limits.push_back({size ? *limit / 1e6 : *limit, !size, "gate: " + gate.limit});
    }
  }
  chart.series.push_back(std::move(series));
  return svg(chart);
}

std::string time_picture(const Report& report) {
  BarChart chart;
  chart.title = "Time per stage";
  chart.width = 640;
  for (const ReportRow& row : report.rows) {
    if (row.seconds && !row.use.empty())
      chart.bars.push_back({row.id, *row.seconds, format_seconds(*row.seconds)});
  }
  return chart.bars.size() < 2 ? "" : svg(chart);
}

std::string value_text(const Json& value) {
  return value.is_string() ? value.get<std::string>() : dump_compact(value);
}

std::string pairs(const Json& object) {
  std::string out = "<div class=\"scroll\"><table><tbody>\n";
  for (const auto& [key, value] : object.items()) {
    out += fmt::format("<tr>{}<td>{}</td></tr>\n", cell("th", key, false, " scope=\"row\""),
                       escape_xml(value_text(value)));
  }
  return out + "</tbody></table></div>\n";
}

std::string lineage(const Report& report) {
  if (report.lineage == nullptr || !report.lineage->is_array() || report.lineage->empty()) return {};
  std::string out =
      "<h2>Lineage</h2>\n<p class=\"soft\">How the last model was made, oldest step first. <code>slmc log "
      "--recipe</code> gives a recipe that makes it again.</p>\n";
  for (const Json& entry : *report.lineage) {
    if (!entry.is_object()) continue;
    const auto text = [&](const char* key) {
      return entry.contains(key) ? value_text(entry[key]) : std::string();
    };
    out +=
        fmt::format("<details><summary><b>{}</b> <span class=\"soft\">{} {}</span></summary>\n",
                    escape_xml(text("id")), escape_xml(text("stage")), escape_xml(text("key").substr(0, 8)));
    for (const char* key : {"settings", "resolved", "versions", "measured"}) {
      if (entry.contains(key) && entry[key].is_object() && !entry[key].empty())
        out += fmt::format("<p>{}</p>\n{}", key, pairs(entry[key]));
    }
    out += "</details>\n";
  }
  return out;
}

std::string environment(const std::vector<std::pair<std::string, std::string>>& values) {
  if (values.empty()) return {};
  Json object = Json::object();
  for (const auto& [name, value] : values) object[name] = value;
  return "<h2>Environment</h2>\n" + pairs(object);
}

}  // namespace

std::string html_table(const Table& table) {
  std::string out = "<div class=\"scroll\"><table>\n<thead><tr>";
  for (std::size_t i = 0; i < table.titles.size(); ++i)
    out += cell("th", table.titles[i], table.right[i], " scope=\"col\"");
  out += "</tr></thead>\n<tbody>\n";
  for (const auto& row : table.rows) {
    out += "<tr>";
    for (std::size_t i = 0; i < row.size(); ++i) out += cell("td", row[i], table.right[i]);
    out += "</tr>\n";
  }
  return out + "</tbody></table></div>\n";
}

std::string html_page(const std::string& name, const std::string& finished, double seconds, const std::string& body,
                      const std::vector<std::pair<std::string, std::string>>& values, const std::string& recipe) {
  std::string out =
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width,initial-scale=1\">\n";
  out += fmt::format("<title>{}: slmc report</title>\n<style>{}</style></head>\n<body>\n<h1>{}</h1>\n", escape_xml(name), kPageStyle, escape_xml(name));
  std::string line = finished;
  if (seconds > 0) line += (line.empty() ? "" : " · ") + format_seconds(seconds);
  if (!line.empty()) out += fmt::format("<p class=\"soft\">{}</p>\n", escape_xml(line));
  out += body + environment(values);
  if (!recipe.empty()) out += fmt::format("<h2>Recipe</h2>\n<pre>{}</pre>\n", escape_xml(recipe));
  return out + "</body></html>\n";
}

std::string html(const Report& report) {
  std::string out = summary(report) + gates(report);
  for (const std::string& warning : report.warnings)
    out += fmt::format("<p class=\"warn\">{}</p>\n", escape_xml(warning));
  if (const std::string picture = quality_picture(report); !picture.empty())
    out += "<h2>Quality against size</h2>\n<div class=\"pic\">" + picture + "</div>\n";
  if (report.kept && anything_went(*report.kept))
    out += "<h2>What is left, by block</h2>\n<div class=\"pic\">" + svg(*report.kept) + "</div>\n";
  out += "<h2>Stages</h2>\n" + html_table(run_table(report));
  if (const std::string picture = time_picture(report); !picture.empty())
    out += "<div class=\"pic\">" + picture + "</div>\n";
  return html_page(report.name, report.finished, report.seconds, out + lineage(report), report.environment, report.recipe);
}

}  // namespace slmc::report
