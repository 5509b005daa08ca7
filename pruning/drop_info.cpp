#include "pruning/drop_info.h"

namespace slmc::pruning {

using stage::Effect;
using stage::Type;

const stage::StageInfo& drop_info() {
  static const stage::StageInfo info = {
      .name = "drop",
      .summary = "remove whole blocks, and let the block before each gap do part of their work",
      .needs = {},
      .output = "hf",
      .settings =
          {
              {.name = "layers", .type = Type::Integer, .help = "How many blocks to remove; which ones is searched.", .least = 1, .most = 1 << 16,
               .unit = "blocks"},
              {.name = "list", .type = Type::Integers, .help = "Remove exactly these blocks, counted from 0; nothing is searched.", .least = 0,
               .most = 1 << 16},
              {.name = "search", .type = Type::Choice, .fallback = "greedy-kl", .help = "How the blocks are found.",
               .choices = {"block-influence", "greedy-kl"}},
              {.name = "heal", .type = Type::Choice, .fallback = "refit", .help = "Closed-form repair of the block before each gap.",
               .choices = {"none", "refit"}},
          },
      .methods =
          {
              {.setting = "search", .name = "block-influence", .summary = "all at once, those that turn the residual stream least",
               .paper = "Men et al. 2024, arXiv:2403.03853", .needs = {.calib = true, .whole = true, .passes = 0.2}, .unless = "list"},
              {.setting = "search", .name = "greedy-kl", .summary = "one after the other, the one whose absence changes the predictions least",
               .paper = "Song et al. 2024, arXiv:2402.09025, with KL to the whole model instead of perplexity", .needs = {.calib = true, .whole = true, .passes = 1.6}, .unless = "list"},
              {.setting = "heal", .name = "none", .summary = "cut only", .paper = "", .needs = {}},
              {.setting = "heal", .name = "refit", .summary = "ffn.down before the gap is re-solved to add what the removed blocks added",
               .paper = "after Shopkhoev et al. 2025, arXiv:2505.02819, with the whole of ffn.down free", .needs = {.calib = true, .whole = true, .passes = 1}},
          },
      .effects = {{Effect::Kind::RemoveCount, "layers", "block"}, {Effect::Kind::RemoveList, "list", "block"}},
      .folder = "pruning",
  };
  return info;
}

}  // namespace slmc::pruning
