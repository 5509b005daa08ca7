#pragma once
// The report of a run: one HTML file, no scripts, nothing loaded from elsewhere, light and dark, readable on
// a phone and on paper.
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/json.h"
#include "report/kept.h"
#include "report/table.h"

namespace slmc::report {

// One model of the chain. Numbers that were not measured are left empty and shown as a dash.
struct ReportRow {
  std::string id;   // "model", "width"
  std::string use;  // "prune"; "" for the input
  std::string container;
  bool reused = false;
  double parameters = 0, file_bytes = 0;
  std::map<std::string, double> metrics;  // "ppl", "ppl_ratio", "kl", "top1", "acc:hellaswag"
  std::optional<double> seconds, peak_bytes;
  std::string path;
};

struct ReportGate {
  std::string metric;
  std::string limit;  // "at most 2.0"
  std::string value;  // "1.31", "not measured"
  bool met = false;
  std::optional<double> least, most;  // drawn into the picture when it shows this metric
};

struct Report {
  std::string name;             // the recipe's
  std::string finished;         // date and time, by the caller; "" = left out
  double seconds = 0;           // of the whole run
  std::vector<ReportRow> rows;  // the input first
  std::vector<ReportGate> gates;
  std::string quality_metric = "ppl";     // drawn against size
  std::vector<std::string> metric_order;  // columns, by base name; empty = the usual ones
  std::optional<Kept> kept;                // what is left of the input in the last model
  std::vector<std::pair<std::string, std::string>> environment;  // "torch" -> "2.13.0"
  std::string recipe;                                            // its text
  Json const* lineage = nullptr;                                 // array of entries, of the last model
  std::vector<std::string> warnings;
};

std::string html(const Report& report);
// A page of ours around a body that is HTML: style, title, when it was made and in how long, and at its end environment and recipe.
std::string html_page(const std::string& name, const std::string& finished, double seconds, const std::string& body,
                      const std::vector<std::pair<std::string, std::string>>& environment, const std::string& recipe);
std::string html_table(const Table& table);
Table run_table(const Report& report);                             // the same table for the terminal
// The metrics of the rows that tables show, in their order; `order` by base name, empty = the usual ones.
std::vector<std::string> shown_metrics(const std::vector<ReportRow>& rows, const std::vector<std::string>& order = {});
std::string metric_title(const std::string& metric);               // "KL, nats per token"
std::string metric_text(const std::string& metric, double value);  // "1.314", "82.1 %", "98.4 MB"

}  // namespace slmc::report
