#include "pruning/width/decide.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"

namespace slmc::pruning {
namespace {

std::int64_t largest(const ir::Sizes& sizes, std::int64_t ir::BlockSizes::* axis) {
  std::int64_t most = 0;
  for (const ir::BlockSizes& b : sizes.blocks) most = std::max(most, b.*axis);
  return most;
}

void require_at_most(const char* what, std::int64_t width, std::int64_t most) {
  if (width <= most) return;
  throw Error(ErrorKind::Recipe, fmt::format("the {} must be at most {}, what the model has, but is {}", what, most, width));
}

}  // namespace

void require_widths(const ir::Sizes& sizes, const Widths& widths, std::int64_t align) {
  if (!widths.ffn && !widths.kv && !widths.heads && !widths.hidden) {
    throw Error(ErrorKind::Recipe, "prune must be told what to narrow, but none of ffn, kv, heads and hidden is set", "for example ffn: 1280");
  }
  if (widths.heads) require_at_most("number of query heads of a group", *widths.heads, largest(sizes, &ir::BlockSizes::q));
  if (widths.kv) require_at_most("number of key/value groups", *widths.kv, largest(sizes, &ir::BlockSizes::kv));
  if (widths.hidden) require_at_most("hidden width", *widths.hidden, sizes.hidden);
  if (!widths.ffn) return;
  require_at_most("feed-forward width", *widths.ffn, largest(sizes, &ir::BlockSizes::ffn));
  if (*widths.ffn % align == 0) return;
  const std::int64_t below = *widths.ffn / align * align;
  throw Error(ErrorKind::Recipe, fmt::format("the feed-forward width must be a multiple of {}, but is {}", align, *widths.ffn),
              fmt::format("nearest: {} and {}; or set align", std::max(below, align), below + align));
}

bool narrows(std::int64_t size, const std::optional<std::int64_t>& width) { return width && size > *width; }

bool narrows_attention(const ir::BlockSizes& sizes, const Widths& widths) { return narrows(sizes.kv, widths.kv) || narrows(sizes.q, widths.heads); }

ir::Plan decide(const ir::Model& model, const Scores& scores, const Widths& widths) {
  ir::Plan plan(model);
  SLMC_CHECK(static_cast<std::int64_t>(scores.blocks.size()) == model.blocks());
  if (narrows(model.sizes().hidden, widths.hidden)) plan.take["hidden"] = keep_best(scores.hidden, *widths.hidden);
  for (std::int64_t i = 0; i < model.blocks(); ++i) {
    const ir::BlockSizes& sizes = model.sizes().blocks[static_cast<std::size_t>(i)];
    const BlockScores& s = scores.blocks[static_cast<std::size_t>(i)];
    const std::string block = "block." + std::to_string(i);
    if (narrows(sizes.ffn, widths.ffn_in(i))) plan.take[block + ".ffn"] = keep_best(s.ffn, *widths.ffn_in(i));
    if (narrows(sizes.kv, widths.kv)) plan.take[block + ".kv"] = keep_best(s.kv, *widths.kv);
    if (!narrows(sizes.q, widths.heads)) continue;
    for (std::int64_t g = 0; g < sizes.kv; ++g) plan.take[fmt::format("{}.kv.{}.q", block, g)] = keep_best(s.heads.select(0, g), *widths.heads);
  }
  return plan;
}

}  // namespace slmc::pruning
