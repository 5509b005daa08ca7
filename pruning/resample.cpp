#include "pruning/resample.h"

#include <algorithm>
#include <iterator>

#include "core/error.h"
#include "core/rng.h"

namespace slmc::pruning {

std::vector<std::int64_t> resampled(std::int64_t n, std::uint64_t seed, std::int64_t which) {
  SLMC_CHECK(n > 0);
  const Rng rng(derive_seed(seed, "resample"), static_cast<std::uint64_t>(which));
  std::vector<std::int64_t> counts(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) ++counts[static_cast<std::size_t>(rng.below(static_cast<std::uint64_t>(n), static_cast<std::uint64_t>(i)))];
  return counts;
}

double resampled_mean(const std::vector<double>& windows, const std::vector<std::int64_t>& counts) {
  SLMC_CHECK(windows.size() == counts.size());
  double sum = 0, weight = 0;
  for (std::size_t w = 0; w < windows.size(); ++w) {
    if (counts[w] == 0) continue;                    // a window without weight may be anything
    sum += windows[w] * static_cast<double>(counts[w]);
    weight += static_cast<double>(counts[w]);
  }
  return sum / weight;
}

double jaccard(const std::vector<std::int64_t>& a, const std::vector<std::int64_t>& b) {
  std::vector<std::int64_t> both;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
  const std::size_t either = a.size() + b.size() - both.size();
  return either == 0 ? 1.0 : static_cast<double>(both.size()) / static_cast<double>(either);
}

}  // namespace slmc::pruning
