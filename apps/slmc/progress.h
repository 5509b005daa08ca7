#pragma once
// What the progress line says and when: speed and time left from the moments at which work was reported. Pure: time comes in.
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace slmc::cli {

struct Progress {
  std::string what;                                   // "heal: training"
  std::int64_t done = 0, of = 0;                      // of == 0: unknown
  std::vector<std::pair<std::string, double>> metrics = {};  // "loss" 3.21, "tokens_per_s" 1200
  bool bytes = false;                                 // done and of count bytes
};

class ProgressLine {
 public:
  // A bar redrawn at most ten times a second, or a plain line every 30 s.
  ProgressLine(bool bar, int width) : bar_(bar), width_(width) {}
  // The line to show at `now` seconds (any origin), or nothing when it is too early for another one.
  std::optional<std::string> update(const Progress& progress, double now);

 private:
  std::string render(const Progress& progress, double now) const;
  bool bar_;
  int width_;                                         // columns; the bar's line is cut to it
  std::string what_;
  double began_ = 0;
  std::optional<double> shown_;
  std::int64_t began_done_ = 0, last_done_ = 0;
};

}  // namespace slmc::cli
