#include "engine/whole_text.h"

#include <algorithm>
#include <numbers>

#include "core/error.h"
#include "engine/evaluate.h"

namespace slmc::engine {

std::vector<data::ScoredSequence> covering_windows(const std::vector<std::int32_t>& ids, std::int64_t window) {
  SLMC_CHECK(window >= 2);
  std::vector<data::ScoredSequence> out;
  const auto n = static_cast<std::int64_t>(ids.size());
  for (std::int64_t at = 0; at + 1 < n; at += window - 1) out.push_back({{ids.begin() + at, ids.begin() + std::min(at + window, n)}, 1, 0});
  return out;
}

WholeText score_whole(Loaded& model, const std::vector<std::int32_t>& ids, std::int64_t window, stage::Events& events) {
  const std::vector<data::ScoredSequence> windows = covering_windows(ids, window);
  const std::vector<double> sums = log_likelihoods(model, windows, events);
  WholeText out{.tokens = static_cast<std::int64_t>(ids.size()) - 1};
  for (std::size_t i = 0; i < windows.size(); ++i) {
    out.nll -= sums[i];
    out.window_nll.push_back(-sums[i] / static_cast<double>(windows[i].ids.size() - 1));
  }
  return out;
}

double bits_per_byte(double nll, std::size_t bytes) { return nll / (static_cast<double>(bytes) * std::numbers::ln2); }

}  // namespace slmc::engine
