#include "report/sweep.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "core/units.h"
#include "report/svg.h"

namespace slmc::report {
namespace {

const std::string kSeed = "seed";

bool is_number(const std::string& text) { return parse_number(text).has_value() || parse_count(text).has_value(); }

double number_of(const std::string& text) {
  if (const auto number = parse_number(text)) return *number;
  return static_cast<double>(parse_count(text).value_or(0));
}

// Indices of the keys that rows keep when seeds are one.
std::vector<std::size_t> kept_keys(const SweepReport& report) {
  std::vector<std::size_t> out;
  for (std::size_t i = 0; i < report.keys.size(); ++i) {
    if (report.keys[i] != kSeed) out.push_back(i);
  }
  return out;
}

// Everything that is measured of a row, by name.
std::map<std::string, double> numbers_of(const ReportRow& row) {
  std::map<std::string, double> out = row.metrics;
  out["parameters"] = row.parameters, out["file_bytes"] = row.file_bytes;
  if (row.seconds) out["seconds"] = *row.seconds;
  if (row.peak_bytes) out["peak_bytes"] = *row.peak_bytes;
  return out;
}

// Whole numbers in full: 2000000, not 2e+06.
std::string cell_of(double x) {
  return x == std::floor(x) && std::abs(x) < 1e15 ? std::to_string(static_cast<std::int64_t>(x)) : format_number(x);
}

std::string quoted(const std::string& cell) {
  if (cell.find_first_of(",\"\n\r") == cell.npos) return cell;
  std::string out = "\"";
  for (const char c : cell) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

void add_line(std::string& out, const std::vector<std::string>& cells) {
  for (std::size_t i = 0; i < cells.size(); ++i) out += (i ? "," : "") + quoted(cells[i]);
  out += "\n";
}

SweepMean mean_of(const std::vector<const SweepRow*>& rows, const std::vector<std::size_t>& keys) {
  SweepMean out{{}, static_cast<std::int64_t>(rows.size()), rows.front()->last, {}};
  for (const std::size_t i : keys) out.values.push_back(rows.front()->values[i]);
  const auto n = static_cast<double>(rows.size());
  std::map<std::string, double> sums, squares;
  std::map<std::string, std::size_t> counts;
  for (const SweepRow* row : rows) {
    for (const auto& [name, value] : numbers_of(row->last)) sums[name] += value, ++counts[name];
  }
  std::erase_if(sums, [&](const auto& sum) { return counts[sum.first] != rows.size(); });      // a mean over some of the seeds would mislead
  for (auto& [name, sum] : sums) sum /= n;
  for (const SweepRow* row : rows) {
    for (const auto& [name, value] : numbers_of(row->last)) {
      if (sums.contains(name)) squares[name] += (value - sums[name]) * (value - sums[name]);
    }
  }
  for (const auto& [name, square] : squares) out.deviation[name] = rows.size() > 1 ? std::sqrt(square / (n - 1)) : 0.0;
  out.mean.metrics.clear();
  for (const auto& [name, value] : sums) {
    if (name == "parameters") out.mean.parameters = value;
    else if (name == "file_bytes") out.mean.file_bytes = value;
    else if (name == "seconds") out.mean.seconds = value;
    else if (name == "peak_bytes") out.mean.peak_bytes = value;
    else out.mean.metrics[name] = value;
  }
  return out;
}

// The first swept key whose values are all numbers, as an index into SweepMean::values; nothing when there is none.
std::optional<std::size_t> number_key(const std::vector<SweepMean>& rows) {
  for (std::size_t i = 0; !rows.empty() && i < rows.front().values.size(); ++i) {
    if (std::all_of(rows.begin(), rows.end(), [&](const SweepMean& r) { return is_number(r.values[i]); })) return i;
  }
  return std::nullopt;
}

std::string joined(const std::vector<std::string>& values, std::optional<std::size_t> without) {
  std::string out;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (i != without) out += (out.empty() ? "" : ", ") + values[i];
  }
  return out;
}

// How a metric looks on an axis: bytes in MB, seconds below one in ms.
struct Unit {
  std::string title;
  double factor = 1;
};
Unit unit_of(const std::string& metric) {
  const std::string base = metric.substr(0, metric.find(':'));
  if (base == "file_bytes" || base == "memory" || base == "peak_bytes") return {metric_title(metric) + ", MB", 1e-6};
  if (base == "latency") return {metric_title(metric) + ", ms", 1e3};
  if (base == "parameters") return {metric_title(metric) + ", millions", 1e-6};
  if (base == "accuracy" || base == "acc" || base == "acc_norm" || base == "pairs" || base == "top1_agreement") return {metric_title(metric) + ", %", 100};
  return {metric_title(metric), 1};
}

std::string line_picture(const std::vector<SweepMean>& rows, std::size_t key, const std::string& x, const std::string& metric) {
  const Unit unit = unit_of(metric);
  LineChart chart;
  chart.title = fmt::format("{} over {}", metric_title(metric), x);
  chart.x = {.title = x, .scale = Scale::Linear, .least = {}, .most = {}};
  chart.y = {.title = unit.title, .scale = Scale::Linear, .least = {}, .most = {}};
  chart.width = 640, chart.height = 340;
  std::map<std::string, std::vector<Point>> series;
  std::vector<std::string> order;
  for (const SweepMean& row : rows) {
    const std::map<std::string, double> numbers = numbers_of(row.mean);
    const std::string name = joined(row.values, key);
    if (!series.contains(name)) order.push_back(name);
    if (numbers.contains(metric)) series[name].push_back({number_of(row.values[key]), numbers.at(metric) * unit.factor, ""});
  }
  for (const std::string& name : order) {
    std::vector<Point>& points = series[name];
    std::sort(points.begin(), points.end(), [](const Point& a, const Point& b) { return a.x < b.x; });
    if (!points.empty()) chart.series.push_back({.name = name, .points = std::move(points)});
  }
  return chart.series.empty() ? "" : svg(chart);
}

std::string bar_picture(const std::vector<SweepMean>& rows, const std::string& metric) {
  const Unit unit = unit_of(metric);
  BarChart chart;
  chart.title = unit.title;
  chart.width = 640;
  for (const SweepMean& row : rows) {
    const std::map<std::string, double> numbers = numbers_of(row.mean);
    if (numbers.contains(metric)) chart.bars.push_back({joined(row.values, std::nullopt), numbers.at(metric), metric_text(metric, numbers.at(metric))});
  }
  return chart.bars.empty() ? "" : svg(chart);
}

// Quality as the table shows it, then what it costs.
std::vector<std::string> drawn_metrics(const std::vector<SweepMean>& rows) {
  std::vector<ReportRow> means;
  for (const SweepMean& row : rows) means.push_back(row.mean);
  std::vector<std::string> out = shown_metrics(means);
  if (out.size() > 4) out.resize(4);
  out.push_back("parameters");
  const bool memory = std::find(out.begin(), out.end(), "memory") != out.end();
  out.push_back(memory ? "file_bytes" : "peak_bytes");
  return out;
}

std::string pictures(const SweepReport& report) {
  const std::vector<SweepMean> rows = over_seeds(report);
  const std::optional<std::size_t> key = number_key(rows);
  std::string out;
  for (const std::string& metric : drawn_metrics(rows)) {
    const std::string picture = key ? line_picture(rows, *key, report.keys[kept_keys(report)[*key]], metric) : bar_picture(rows, metric);
    if (!picture.empty()) out += "<div class=\"pic\">" + picture + "</div>\n";
  }
  return out;
}

}  // namespace

std::vector<SweepMean> over_seeds(const SweepReport& report) {
  const std::vector<std::size_t> keys = kept_keys(report);
  std::vector<std::pair<std::vector<std::string>, std::vector<const SweepRow*>>> groups;
  for (const SweepRow& row : report.rows) {
    std::vector<std::string> values;
    for (const std::size_t i : keys) values.push_back(row.values[i]);
    const auto it = std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return g.first == values; });
    if (it == groups.end()) groups.push_back({values, {&row}});
    else it->second.push_back(&row);
  }
  std::vector<SweepMean> out;
  for (const auto& [values, rows] : groups) out.push_back(mean_of(rows, keys));
  return out;
}

Table sweep_table(const SweepReport& report) {
  const std::vector<SweepMean> rows = over_seeds(report);
  std::vector<ReportRow> means;
  for (const SweepMean& row : rows) means.push_back(row.mean);
  Table table;
  for (const std::size_t i : kept_keys(report)) table.titles.push_back(report.keys[i]);
  const bool seeds = kept_keys(report).size() < report.keys.size();
  if (seeds) table.titles.push_back("seeds");
  const std::size_t words = table.titles.size();
  std::vector<std::string> columns = {"parameters", "file_bytes"};
  for (const std::string& metric : shown_metrics(means)) columns.push_back(metric);
  columns.insert(columns.end(), {"seconds", "peak_bytes"});
  for (const std::string& column : columns) table.titles.push_back(metric_title(column));
  for (const SweepMean& row : rows) {
    std::vector<std::string> cells = row.values;
    if (seeds) cells.push_back(std::to_string(row.seeds));
    const std::map<std::string, double> numbers = numbers_of(row.mean);
    for (const std::string& column : columns) {
      const auto it = numbers.find(column);
      std::string cell = it == numbers.end() ? "–" : metric_text(column, it->second);
      const bool varies = row.seeds > 1 && it != numbers.end() && row.mean.metrics.contains(column) && row.deviation.at(column) > 0;
      if (varies && column != "latency" && column != "memory") cell += " ± " + metric_text(column, row.deviation.at(column));
      cells.push_back(std::move(cell));
    }
    table.rows.push_back(std::move(cells));
  }
  table.right.assign(table.titles.size(), true);
  for (std::size_t i = 0; i < words; ++i) {
    table.right[i] = std::all_of(table.rows.begin(), table.rows.end(), [&](const auto& cells) { return is_number(cells[i]); });
  }
  return table;
}

std::string sweep_csv(const SweepReport& report) {
  std::set<std::string> metrics;
  for (const SweepRow& row : report.rows) {
    for (const auto& [name, value] : numbers_of(row.last)) metrics.insert(name);
  }
  std::vector<std::string> titles = report.keys;
  titles.insert(titles.end(), metrics.begin(), metrics.end());
  titles.push_back("path");
  std::string out;
  add_line(out, titles);
  for (const SweepRow& row : report.rows) {
    std::vector<std::string> cells = row.values;
    const std::map<std::string, double> numbers = numbers_of(row.last);
    for (const std::string& metric : metrics) {
      const auto it = numbers.find(metric);
      cells.push_back(it == numbers.end() ? "" : cell_of(it->second));
    }
    cells.push_back(row.last.path);
    add_line(out, cells);
  }
  return out;
}

std::string html(const SweepReport& report) {
  std::string body;
  for (const std::string& warning : report.warnings) body += fmt::format("<p class=\"warn\">{}</p>\n", escape_xml(warning));
  const bool seeds = kept_keys(report).size() < report.keys.size();
  body += "<h2>Values</h2>\n" + html_table(sweep_table(report));
  if (seeds) body += "<p class=\"soft\">Means over the seeds, ± the standard deviation between them.</p>\n";
  body += "<h2>Pictures</h2>\n" + pictures(report);
  return html_page(report.name, report.finished, report.seconds, body, report.environment, report.recipe);
}

}  // namespace slmc::report
