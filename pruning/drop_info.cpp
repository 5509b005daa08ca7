#include "pruning/drop_info.h"

namespace slmc::pruning {

using stage::Effect;
using stage::Type;

const stage::StageInfo& drop_info() {
  static const stage::StageInfo info = {
      .name = "drop",
      .summary = "remove whole blocks or their parts, and let what is left do part of their work",
      .needs = {},
      .output = "hf",
      .settings =
          {
              {.name = "layers", .type = Type::Integer, .help = "How many blocks, or parts of blocks (units), to remove; which ones is searched.",
               .least = 1, .most = 1 << 16, .unit = "blocks"},
              {.name = "list", .type = Type::Integers, .help = "Remove exactly these blocks, or these blocks' parts, counted from 0; nothing is searched.",
               .least = 0, .most = 1 << 16},
              {.name = "keep_first", .type = Type::Integer,
               .help = "Keep exactly so many blocks from the front, and the embeddings, last norm and head [Yuan et al. 2024, arXiv:2402.11700].", .least = 1,
               .most = 1 << 16, .unit = "blocks"},
              {.name = "units", .type = Type::Choice, .fallback = "layer",
               .help = "What goes: whole blocks; only attention; only feed-forward parts; or parts of both kinds with as many parameters as 'layers' blocks have.",
               .choices = {"layer", "attn", "mlp", "any"}},
              {.name = "store", .type = Type::Choice, .fallback = "cut",
               .help = "How parts of blocks go: cut leaves their tensors out, which no stock container can say; zeros fills their last matrix with zeros, "
                       "which every reader opens and which saves no bytes.",
               .choices = {"cut", "zeros"}, .only_beside = "units", .only_values = {"attn", "mlp", "any"}},
              {.name = "search", .type = Type::Choice, .fallback = "block-influence", .help = "How the blocks are found.",
               .choices = {"block-influence", "angular", "one-shot-ppl", "one-shot-kl", "greedy-ppl", "greedy-kl", "greedy-healed", "evolve"}},
              {.name = "token", .type = Type::Choice, .fallback = "all", .help = "Positions whose angles count: all, or each window's last as in the paper.",
               .choices = {"all", "last"}, .only_beside = "search", .only_values = {"angular"}},
              {.name = "generations", .type = Type::Integer, .fallback = "30", .help = "How often children of the best cut so far are tried, 16 each time.",
               .least = 1, .most = 1 << 16, .only_beside = "search", .only_values = {"evolve"}},
              {.name = "tries", .type = Type::Integer, .fallback = "8", .help = "Calibration windows that cuts are tried on.", .least = 1, .most = 1 << 12,
               .unit = "windows", .only_beside = "search",
               .only_values = {"one-shot-ppl", "one-shot-kl", "greedy-ppl", "greedy-kl", "greedy-healed", "evolve"}},
              {.name = "repair_tries", .type = Type::Integer, .fallback = "16",
               .help = "Further calibration windows that the part before each gap of a tried cut is refitted on before the cut is judged.", .least = 1,
               .most = 1 << 12, .unit = "windows", .only_beside = "search", .only_values = {"greedy-healed"}},
              {.name = "stability", .type = Type::Integer, .fallback = "0",
               .help = "Decide again on so many resamples of the calibration windows and say how often each unit goes; no further pass.",
               .least = 0, .most = 1000, .unit = "resamples", .only_beside = "search",
               .only_values = {"block-influence", "angular", "one-shot-ppl", "one-shot-kl"}},
              {.name = "swap", .type = Type::Boolean, .fallback = "false",
               .help = "After the search, exchange removed units for kept ones as long as that lowers what they cost."},
              {.name = "heal", .type = Type::Choice, .fallback = "refit", .help = "Closed-form repair of what is left.",
               .choices = {"none", "refit", "linear", "merge"}},
          },
      .methods =
          {
              {.setting = "search", .name = "block-influence", .summary = "all at once, those that turn the residual stream least",
               .paper = "Men et al. 2024, arXiv:2403.03853", .needs = {.calib = true, .whole = true, .passes = 0.5}, .unless = "list, keep_first"},
              {.setting = "search", .name = "angular", .summary = "the run of blocks that turns the residual stream least",
               .paper = "Gromov et al. 2024, arXiv:2403.17887", .needs = {.calib = true, .whole = true, .passes = 0.5}, .unless = "list, keep_first"},
              {.setting = "search", .name = "one-shot-ppl", .summary = "each tried alone; those whose absence costs least perplexity go at once",
               .paper = "Kim et al. 2024, arXiv:2402.02834", .needs = {.calib = true, .whole = true, .passes = 1}, .unless = "list, keep_first"},
              {.setting = "search", .name = "one-shot-kl", .summary = "each tried alone; those whose absence changes the predictions least go at once",
               .paper = "Kim et al. 2024, arXiv:2402.02834, with KL to the whole model instead of perplexity",
               .needs = {.calib = true, .whole = true, .passes = 1}, .unless = "list, keep_first"},
              {.setting = "search", .name = "greedy-ppl", .summary = "one after the other, the one whose absence costs least perplexity",
               .paper = "Song et al. 2024, arXiv:2402.09025; with parts Zhong et al. 2024, arXiv:2406.10594",
               .needs = {.calib = true, .whole = true, .passes = 1.6}, .unless = "list, keep_first"},
              {.setting = "search", .name = "greedy-kl", .summary = "one after the other, the one whose absence changes the predictions least",
               .paper = "Song et al. 2024, arXiv:2402.09025, with KL to the whole model instead of perplexity", .needs = {.calib = true, .whole = true, .passes = 1.6}, .unless = "list, keep_first"},
              {.setting = "search", .name = "greedy-healed", .summary = "one after the other, the one whose absence changes the predictions least once the part before it is refitted",
               .paper = "after Song et al. 2024, arXiv:2402.09025, with KL to the whole model, and each candidate repaired before it is judged",
               .needs = {.calib = true, .whole = true, .passes = 3}, .unless = "list, keep_first"},
              {.setting = "search", .name = "evolve", .summary = "cuts with random swaps, selected by KL over generations",
               .paper = "Sieberling et al. 2024, arXiv:2410.14649", .needs = {.calib = true, .whole = true, .passes = 8}, .unless = "list, keep_first"},
              {.setting = "swap", .name = "true", .summary = "one comes back and another goes, until no swap helps", .paper = "",
               .needs = {.calib = true, .whole = true, .passes = 2}, .unless = "list, keep_first"},
              {.setting = "heal", .name = "none", .summary = "cut only", .paper = "", .needs = {}},
              {.setting = "heal", .name = "refit", .summary = "the part before each gap, and those behind it, are re-solved to add what the removed ones added",
               .paper = "after Shopkhoev et al. 2025, arXiv:2505.02819, with whole matrices free", .needs = {.calib = true, .whole = true, .passes = 4}},
              {.setting = "heal", .name = "linear", .summary = "a linear map of the hidden width, folded into the part before each gap",
               .paper = "Shopkhoev et al. 2025, arXiv:2505.02819", .needs = {.calib = true, .whole = true, .passes = 1.5}},
              {.setting = "heal", .name = "merge", .summary = "the removed blocks' differences are added to the block before each gap",
               .paper = "Yang et al. 2024, arXiv:2402.11187", .needs = {.calib = true, .whole = true, .passes = 0.5}},
          },
      .effects = {{Effect::Kind::RemoveCount, "layers", "block", "units", "layer"}, {Effect::Kind::RemoveList, "list", "block", "units", "layer"},
                  {Effect::Kind::Resize, "keep_first", "block", "units", "layer"}},
      .folder = "pruning",
  };
  return info;
}

}  // namespace slmc::pruning
