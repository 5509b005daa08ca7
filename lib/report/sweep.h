#pragma once
// The report of a sweep: one row for each combination of the swept values, with the last model of its chain. As a table for the terminal, as
// CSV for other programs, and as a page with pictures of quality, size, latency and memory over the first swept number.
#include <string>
#include <utility>
#include <vector>

#include "report/html.h"
#include "report/table.h"

namespace slmc::report {

struct SweepRow {
  std::vector<std::string> values;        // of the swept keys
  ReportRow last;                         // the chain's last model; its `seconds` are those of all stages
};

struct SweepReport {
  std::string name, finished;             // as in Report
  double seconds = 0;
  std::vector<std::string> keys;          // "cut.keep_first", "seed"
  std::vector<SweepRow> rows;
  std::vector<std::pair<std::string, std::string>> environment;
  std::string recipe;
  std::vector<std::string> warnings;
};

// Rows whose values differ in `seed` only, as one: every number is their mean, `deviation` holds the standard deviation over the seeds
// (n - 1) of each metric. The same rows where no seed is swept.
struct SweepMean {
  std::vector<std::string> values;        // without the seed
  std::int64_t seeds = 1;
  ReportRow mean;
  std::map<std::string, double> deviation;
};
std::vector<SweepMean> over_seeds(const SweepReport& report);

Table sweep_table(const SweepReport& report);       // of over_seeds
std::string sweep_csv(const SweepReport& report);   // every row and every number [RFC 4180, with line feeds]
std::string html(const SweepReport& report);

}  // namespace slmc::report
