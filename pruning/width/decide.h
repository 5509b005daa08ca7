#pragma once
// From scores to a plan: which channels, groups and heads each block keeps, and which channels of the stream. Pure: no text, no weights,
// the same plan for the same scores.
#include <optional>
#include <vector>

#include "ir/plan.h"
#include "pruning/width/criterion.h"

namespace slmc::pruning {

struct Widths {
  std::optional<std::int64_t> ffn, kv;        // what each block keeps; nothing = all
  std::optional<std::int64_t> heads;          // query heads that each key/value group keeps
  std::optional<std::int64_t> hidden;         // channels of the residual stream, the same in all blocks
  std::vector<std::int64_t> ffn_of_block;     // where blocks differ, in place of `ffn`, which stands too; empty: they do not
  std::optional<std::int64_t> ffn_in(std::int64_t block) const {
    return ffn_of_block.empty() ? ffn : std::optional(ffn_of_block[static_cast<std::size_t>(block)]);
  }
};

struct BlockScores {
  at::Tensor ffn, kv;                         // [ffn] [kv]; undefined where nothing is removed
  at::Tensor heads;                           // [kv, q]
};

struct Scores {
  std::vector<BlockScores> blocks;
  at::Tensor hidden;                          // [hidden]; undefined where nothing is removed
};

// Error(Recipe) when a width is more than any block has, or no multiple of `align`; names the nearest legal ones.
void require_widths(const ir::Sizes& sizes, const Widths& widths, std::int64_t align);

// What a block of this size keeps; blocks that have less already keep what they have.
bool narrows(std::int64_t size, const std::optional<std::int64_t>& width);
bool narrows_attention(const ir::BlockSizes& sizes, const Widths& widths);         // its groups or its heads

ir::Plan decide(const ir::Model& model, const Scores& scores, const Widths& widths);

}  // namespace slmc::pruning
