#include "apps/slmc/picture.h"

#include <algorithm>
#include <numeric>

namespace slmc::cli {
namespace {

// The ancestor's number of each block.
std::vector<std::int64_t> numbers_of(const ir::Model& model) {
  if (!model.origin().blocks.empty()) return model.origin().blocks;
  std::vector<std::int64_t> all(static_cast<std::size_t>(model.blocks()));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

bool fits_in(const ir::BlockSizes& small, const ir::BlockSizes& large) {
  return small.ffn <= large.ffn && small.kv <= large.kv && small.heads() <= large.heads();
}

}  // namespace

report::Kept kept_of(const ir::Sizes& before, const ir::Sizes& after, const std::vector<std::int64_t>& blocks, bool which_known) {
  report::Kept out;
  out.which_known = which_known;
  for (std::size_t i = 0; i < before.blocks.size(); ++i) {
    const ir::BlockSizes& was = before.blocks[i];
    const auto at = std::find(blocks.begin(), blocks.end(), static_cast<std::int64_t>(i));
    const ir::BlockSizes now = at == blocks.end() ? ir::BlockSizes{} : after.blocks[static_cast<std::size_t>(at - blocks.begin())];
    out.blocks.push_back({.number = static_cast<std::int64_t>(i), .there = at != blocks.end(), .kv = {now.kv, was.kv},
                          .heads = {now.heads(), was.heads()}, .ffn = {now.ffn, was.ffn}});
  }
  out.whole = {{"blocks", {static_cast<std::int64_t>(after.blocks.size()), static_cast<std::int64_t>(before.blocks.size())}},
               {"hidden", {after.hidden, before.hidden}},
               {"vocab", {after.vocab, before.vocab}}};
  return out;
}

std::optional<report::Kept> kept_between(const ir::Model& a, const ir::Model& b) {
  const std::string &of_a = a.origin().ancestor, &of_b = b.origin().ancestor;
  if (!of_a.empty() && of_a != of_b) return std::nullopt;
  if (b.sizes().hidden > a.sizes().hidden || b.sizes().vocab > a.sizes().vocab) return std::nullopt;
  const std::vector<std::int64_t> from = numbers_of(a);
  std::vector<std::int64_t> blocks;
  for (const std::int64_t number : numbers_of(b)) {
    const auto at = std::find(from.begin(), from.end(), number);
    if (at == from.end()) return std::nullopt;
    blocks.push_back(at - from.begin());
    if (!fits_in(b.sizes().blocks[blocks.size() - 1], a.sizes().blocks[static_cast<std::size_t>(blocks.back())])) return std::nullopt;
  }
  return kept_of(a.sizes(), b.sizes(), blocks);
}

}  // namespace slmc::cli
