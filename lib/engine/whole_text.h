#pragma once
// Every token of a text scored once, so that models of different vocabularies can be compared by what each byte costs.
#include <cstdint>
#include <vector>

#include "data/eval_sets.h"
#include "engine/decoder.h"
#include "stage/job.h"

namespace slmc::engine {

// Windows of at most `window` >= 2 ids. Each begins with the last id of the one before, which it only reads; the first id of all is read only.
std::vector<data::ScoredSequence> covering_windows(const std::vector<std::int32_t>& ids, std::int64_t window);

struct WholeText {
  double nll = 0;                          // sum over all ids but the first, nats
  std::int64_t tokens = 0;                 // ids.size() - 1
  std::vector<double> window_nll;          // means
};
WholeText score_whole(Loaded& model, const std::vector<std::int32_t>& ids, std::int64_t window, stage::Events& events);

// nll: a sum in nats over text of so many bytes.
double bits_per_byte(double nll, std::size_t bytes);

}  // namespace slmc::engine
