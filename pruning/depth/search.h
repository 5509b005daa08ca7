#pragma once
// Which blocks a model can do without.
#include <cstdint>
#include <vector>

#include "pruning/depth/judge.h"
#include "stage/job.h"

namespace slmc::pruning {

struct Removal {
  std::int64_t block = 0;
  double score = 0;                // block-influence: of the whole model; greedy-kl: KL to it with this and all earlier ones gone
};

// The `count` blocks that turn the residual stream least, all at once [Men et al. 2024, arXiv:2403.03853]. Of equals the first.
std::vector<Removal> by_block_influence(const std::vector<double>& influence, std::int64_t count);

// One block after the other, the one whose absence (with those before) gives the least KL to the whole model. Candidates of a round are the
// `shortlist` remaining blocks that turn the stream least at that time; every third round tries all.
// After Song et al. 2024 (SLEB, arXiv:2402.09025), with KL in place of perplexity. Only blocks behind the candidate are run again, from
// one prefix that moves along: no cache of states. Ties go to the lower block.
std::vector<Removal> by_greedy_kl(const Judge& judge, const engine::Arch& arch, engine::Weights& weights, std::int64_t count,
                                  std::int64_t shortlist, stage::Events& events);

}  // namespace slmc::pruning
