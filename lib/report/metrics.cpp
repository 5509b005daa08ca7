// How numbers of a run are named and written, for the terminal and the page alike.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "core/units.h"
#include "report/html.h"

namespace slmc::report {
namespace {

enum class Form { Number, Ratio, Percent, Bytes, Count, Milliseconds, Seconds };

struct MetricWords {
  std::string_view name, title;
  Form form;
};

constexpr std::array kWords = {
    MetricWords{"ppl", "perplexity", Form::Number},
    MetricWords{"reference_ppl", "perplexity of the reference", Form::Number},
    MetricWords{"ppl_ratio", "ppl ratio", Form::Ratio},
    MetricWords{"log_ppl_increase", "log ppl increase", Form::Ratio},
    MetricWords{"nll", "nats per token", Form::Ratio},
    MetricWords{"bits_per_byte", "bits per byte", Form::Ratio},
    MetricWords{"reference_bits_per_byte", "bits per byte of the reference", Form::Ratio},
    MetricWords{"bits_per_byte_ratio", "bits per byte ratio", Form::Ratio},
    MetricWords{"kl", "KL, nats", Form::Ratio},
    MetricWords{"top1_agreement", "top-1", Form::Percent},
    MetricWords{"acc", "acc", Form::Percent},
    MetricWords{"acc_norm", "acc_norm", Form::Percent},
    MetricWords{"pairs", "pairs", Form::Percent},
    MetricWords{"accuracy", "accuracy", Form::Percent},
    MetricWords{"latency", "latency", Form::Milliseconds},
    MetricWords{"memory", "memory", Form::Bytes},
    MetricWords{"parameters", "parameters", Form::Count},
    MetricWords{"parameters_ratio", "parameters ratio", Form::Ratio},
    MetricWords{"file_bytes", "size", Form::Bytes},
    MetricWords{"bytes_ratio", "size ratio", Form::Ratio},
    MetricWords{"kv_bytes_per_token", "KV bytes per token", Form::Bytes},
    MetricWords{"seconds", "time", Form::Seconds},
    MetricWords{"peak_bytes", "peak memory", Form::Bytes},
};

const std::vector<std::string>& usual() {
  static const std::vector<std::string> names = {"ppl", "ppl_ratio", "bits_per_byte_ratio", "kl", "top1_agreement",
                                                 "acc", "acc_norm",  "pairs", "accuracy", "latency", "memory"};
  return names;
}

std::string base_of(const std::string& metric) { return metric.substr(0, metric.find(':')); }

const MetricWords* words_of(const std::string& base) {
  const auto it =
      std::find_if(kWords.begin(), kWords.end(), [&](const MetricWords& w) { return w.name == base; });
  return it == kWords.end() ? nullptr : &*it;
}

// Columns of one base metric: itself, or, when several tasks give it, one for each.
std::vector<std::string> columns_of(const std::string& base, const std::vector<ReportRow>& rows) {
  std::set<std::string> tasks;
  bool plain = false;
  for (const ReportRow& row : rows) {
    for (const auto& [name, value] : row.metrics) {
      if (name == base) plain = true;
      if (name.starts_with(base + ":")) tasks.insert(name);
    }
  }
  if (tasks.size() > 1) return {tasks.begin(), tasks.end()};
  return plain ? std::vector<std::string>{base} : std::vector<std::string>{tasks.begin(), tasks.end()};
}

}  // namespace

std::string metric_title(const std::string& metric) {
  const std::string base = base_of(metric);
  const MetricWords* words = words_of(base);
  std::string out = words ? std::string(words->title) : base;
  if (base.size() < metric.size()) out += " (" + metric.substr(base.size() + 1) + ")";
  return out;
}

std::string metric_text(const std::string& metric, double value) {
  const MetricWords* words = words_of(base_of(metric));
  if (!std::isfinite(value)) return "–";
  const auto whole = [&] { return static_cast<std::uint64_t>(std::llround(std::clamp(value, 0.0, 9e18))); };
  switch (words ? words->form : Form::Ratio) {
    case Form::Number: return value < 1000 ? fmt::format("{:.2f}", value) : fmt::format("{:.0f}", value);
    case Form::Ratio:
      return std::abs(value) < 1000 ? fmt::format("{:.3f}", value) : fmt::format("{:.0f}", value);
    case Form::Percent: return fmt::format("{:.1f} %", value * 100);
    case Form::Bytes: return format_bytes(whole());
    case Form::Count: return format_count(whole());
    case Form::Milliseconds: return fmt::format("{:.1f} ms", value * 1000);
    case Form::Seconds: return format_seconds(value);
  }
  return {};
}

std::vector<std::string> shown_metrics(const std::vector<ReportRow>& rows, const std::vector<std::string>& order) {
  std::vector<std::string> out;
  for (const std::string& base : order.empty() ? usual() : order) {
    for (std::string& column : columns_of(base, rows)) out.push_back(std::move(column));
  }
  return out;
}

Table run_table(const Report& report) {
  Table table;
  table.titles = {"stage", "does", "parameters", "size"};
  const std::vector<std::string> metrics = shown_metrics(report.rows, report.metric_order);
  for (const std::string& metric : metrics) table.titles.push_back(metric_title(metric));
  const bool timed = std::any_of(report.rows.begin(), report.rows.end(),
                                 [](const ReportRow& r) { return r.seconds.has_value(); });
  const bool weighed = std::any_of(report.rows.begin(), report.rows.end(),
                                   [](const ReportRow& r) { return r.peak_bytes.has_value(); });
  if (timed) table.titles.push_back("time");
  if (weighed) table.titles.push_back("peak memory");
  for (const ReportRow& row : report.rows) {
    std::vector<std::string> cells = {
        row.id, row.use.empty() ? "input" : row.use + (row.reused ? " (reused)" : ""),
        metric_text("parameters", row.parameters), metric_text("file_bytes", row.file_bytes)};
    for (const std::string& metric : metrics) {
      const auto it = row.metrics.find(metric);
      cells.push_back(it == row.metrics.end() ? "–" : metric_text(metric, it->second));
    }
    if (timed) cells.push_back(row.seconds ? metric_text("seconds", *row.seconds) : "–");
    if (weighed) cells.push_back(row.peak_bytes ? metric_text("peak_bytes", *row.peak_bytes) : "–");
    table.rows.push_back(std::move(cells));
  }
  table.right.assign(table.titles.size(), true);
  table.right[0] = table.right[1] = false;
  return table;
}

}  // namespace slmc::report
