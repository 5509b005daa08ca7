#include "pruning/depth/gap.h"

namespace slmc::pruning {

bool Gap::whole_blocks() const {
  return before.part == Part::FeedForward && after.part == Part::Attention &&
         removed.size() == 2 * static_cast<std::size_t>(after.block - before.block - 1);
}

std::vector<Gap> sites_of(const ir::Sizes& whole, const ir::Sizes& cut, bool followers) {
  const Unit end{static_cast<std::int64_t>(whole.blocks.size()), Part::Attention};
  std::vector<Gap> all = {{{-1, Part::FeedForward}, {}, end}};       // one for each kept part, and one for the front
  const auto visit = [&](const Unit& part, std::int64_t there, std::int64_t left) {
    if (there == 0) return;
    if (left == 0) return all.back().removed.push_back(part);
    all.back().after = part;
    all.push_back({part, {}, end});
  };
  for (std::int64_t i = 0; i < end.block; ++i) {
    const ir::BlockSizes &before = whole.blocks[static_cast<std::size_t>(i)], &now = cut.blocks[static_cast<std::size_t>(i)];
    visit({i, Part::Attention}, before.heads(), now.heads());
    visit({i, Part::FeedForward}, before.ffn, now.ffn);
  }
  std::vector<Gap> out;
  for (Gap& gap : all) {
    if (!gap.removed.empty() || (followers && !out.empty())) out.push_back(std::move(gap));
  }
  return out;
}

}  // namespace slmc::pruning
