#pragma once
// How far a decision hangs on the windows that happened to be measured: it is taken again on windows drawn with replacement from the same
// ones, the bootstrap [Efron 1979, Ann. Statist. 7(1)]. What was measured window by window needs no further pass.
#include <cstdint>
#include <vector>

namespace slmc::pruning {

// How often each of n windows stands in resample number `which`: n draws. A pure function.
std::vector<std::int64_t> resampled(std::int64_t n, std::uint64_t seed, std::int64_t which);

// The mean of one value per window when window w counts `counts[w]` times.
double resampled_mean(const std::vector<double>& windows, const std::vector<std::int64_t>& counts);

// Jaccard index of two sets, both ascending: entries of both over entries of either; 1 for two empty sets.
double jaccard(const std::vector<std::int64_t>& a, const std::vector<std::int64_t>& b);

}  // namespace slmc::pruning
