#include "pruning/prune_info.h"

namespace slmc::pruning {

using stage::Effect;
using stage::Type;

const stage::StageInfo& prune_info() {
  static const stage::StageInfo info = {
      .name = "prune",
      .summary = "make every block narrower: feed-forward channels, key/value groups; the vocabulary smaller",
      .needs = {},
      .output = "hf",
      .settings =
          {
              {.name = "ffn", .type = Type::Integer, .help = "Feed-forward channels that each block keeps; unset keeps all.", .least = 1,
               .most = 1 << 24, .unit = "channels"},
              {.name = "kv", .type = Type::Integer, .help = "Key/value groups, with their query heads, that each block keeps; unset keeps all.",
               .least = 1, .most = 1 << 16, .unit = "groups"},
              {.name = "heads", .type = Type::Integer, .help = "Query heads that each key/value group keeps; unset keeps all.", .least = 1,
               .most = 1 << 16, .unit = "heads of a group"},
              {.name = "hidden", .type = Type::Integer, .help = "Channels of the residual stream that stay, the same in all blocks; unset keeps all.",
               .least = 1, .most = 1 << 24, .unit = "channels"},
              {.name = "criterion", .type = Type::Choice, .fallback = "wanda", .help = "Which channels and groups matter.",
               .choices = {"random", "magnitude", "l1", "l2", "maw", "minitron", "wanda", "flap", "obs", "taylor-vector", "taylor-element1",
                           "taylor-element2", "taylor-mixed", "taylor-kl", "auto"},
               .only_beside = "ffn, kv, heads, hidden"},
              {.name = "aggregate", .type = Type::Choice, .fallback = "sum",
               .help = "How the scores of the tensors that a structure runs through become one; first and last in the order gate up down and q k v o.",
               .choices = {"sum", "prod", "max", "mean", "first", "last"}, .only_beside = "criterion",
               .only_values = {"l1", "l2", "taylor-vector", "taylor-element1", "taylor-element2", "taylor-mixed"}},
              {.name = "refit", .type = Type::Choice, .fallback = "dense",
               .help = "Let what is kept take over what the removed did, by least squares on calibration text.",
               .choices = {"none", "bias", "dense", "sequential"}, .only_beside = "ffn, kv, heads, hidden"},
              {.name = "vocab", .type = Type::Integer, .help = "Tokens that the vocabulary keeps, a multiple of 64; unset keeps all.", .least = 1,
               .most = 1 << 24, .unit = "tokens"},
              {.name = "keep", .type = Type::Choice, .fallback = "count", .help = "Which tokens stay, beside special ones, bytes and what they are merged from.",
               .choices = {"rank", "count"}, .only_beside = "vocab"},
              {.name = "align", .type = Type::Integer, .fallback = "auto",
               .help = "The feed-forward width must be a multiple of this; auto: 32, the block of the 4-, 5- and 8-bit containers.", .least = 1,
               .most = 4096, .unit = "channels", .may_be_auto = true, .only_beside = "ffn"},
          },
      .methods =
          {
              {.setting = "criterion", .name = "random", .summary = "a seeded draw: the control that every criterion must beat", .paper = "", .needs = {}},
              {.setting = "criterion", .name = "magnitude", .summary = "norms of a channel's weights",
               .paper = "Li et al. 2017, arXiv:1608.08710", .needs = {}},
              {.setting = "criterion", .name = "wanda", .summary = "norms of the weights times the size of what flows through them",
               .paper = "Sun et al. 2023, arXiv:2306.11695, for whole channels as in An et al. 2023, arXiv:2312.11983", .needs = {.calib = true, .passes = 1}},
              {.setting = "criterion", .name = "l1", .summary = "sums of the magnitudes of a structure's weights",
               .paper = "Li et al. 2017, arXiv:1608.08710", .needs = {}},
              {.setting = "criterion", .name = "l2", .summary = "sums of the squares of a structure's weights",
               .paper = "Ma et al. 2023, arXiv:2305.11627, the control of sec. 4", .needs = {}},
              {.setting = "criterion", .name = "maw", .summary = "largest and smallest weights of gate and up, for gated feed-forward parts",
               .paper = "the neuron selection of OptiPFair", .needs = {}},
              {.setting = "criterion", .name = "minitron", .summary = "how large a structure's activations are",
               .paper = "Muralidharan et al. 2024, arXiv:2407.14679", .needs = {.calib = true, .passes = 1}},
              {.setting = "criterion", .name = "flap", .summary = "how much a structure's activations vary, times its weights",
               .paper = "An et al. 2023, arXiv:2312.11983", .needs = {.calib = true, .passes = 1}},
              {.setting = "criterion", .name = "obs", .summary = "greedy: what the others can stand in for best goes first",
               .paper = "Hassibi & Stork 1993; Kurtic et al. 2023, arXiv:2302.04089", .needs = {.calib = true, .passes = 1}},
              {.setting = "criterion", .name = "taylor-vector", .summary = "LLM-Pruner: |sum of weight times gradient|",
               .paper = "Ma et al. 2023, arXiv:2305.11627, eq. 3", .needs = {.calib = true, .passes = 4}},
              {.setting = "criterion", .name = "taylor-element1", .summary = "LLM-Pruner: sum of |weight times gradient|",
               .paper = "Ma et al. 2023, arXiv:2305.11627, eq. 5, first order", .needs = {.calib = true, .passes = 4}},
              {.setting = "criterion", .name = "taylor-element2", .summary = "LLM-Pruner: squares of weights times squares of gradients",
               .paper = "Ma et al. 2023, arXiv:2305.11627, eq. 5, second order", .needs = {.calib = true, .passes = 4}},
              {.setting = "criterion", .name = "taylor-mixed", .summary = "LLM-Pruner: both orders",
               .paper = "Ma et al. 2023, arXiv:2305.11627, eq. 5", .needs = {.calib = true, .passes = 4}},
              {.setting = "criterion", .name = "taylor-kl", .summary = "how fast the predictions move away from the whole model's",
               .paper = "after Theis et al. 2018, arXiv:1801.05787, eq. 6", .needs = {.calib = true, .passes = 4}},
              {.setting = "criterion", .name = "auto", .summary = "tries wanda, minitron, flap, obs and taylor-element1 on held-out calibration text",
               .paper = "", .needs = {.calib = true, .whole = true, .passes = 12}},
              {.setting = "refit", .name = "none", .summary = "cut only", .paper = "", .needs = {}},
              {.setting = "refit", .name = "bias", .summary = "biases take the mean of what was removed; for families that have them",
               .paper = "An et al. 2023, arXiv:2312.11983, sec. 3.3", .needs = {.calib = true, .passes = 1.2}},
              {.setting = "refit", .name = "dense", .summary = "maps that lose inputs, for what they read in the whole model, from cached statistics",
               .paper = "after He et al. 2017, arXiv:1707.06168, sec. 3.1", .needs = {.calib = true, .passes = 1.2}},
              {.setting = "refit", .name = "sequential", .summary = "then block after block, for what the repaired blocks before it let through",
               .paper = "after He et al. 2017, arXiv:1707.06168, sec. 3.1", .needs = {.calib = true, .passes = 3}},
              {.setting = "keep", .name = "rank", .summary = "the first merges, which the tokenizer's makers found the most frequent", .paper = "", .needs = {}},
              {.setting = "keep", .name = "count", .summary = "what the calibration text holds, and what tokens of that rank do on average",
               .paper = "isotonic regression: Ayer et al. 1955", .needs = {.calib = true}},
          },
      .effects = {{Effect::Kind::Resize, "ffn", "ffn"}, {Effect::Kind::Resize, "kv", "kv"}, {Effect::Kind::Resize, "heads", "q"},
                  {Effect::Kind::Resize, "hidden", "hidden"}, {Effect::Kind::Resize, "vocab", "vocab"}},
      .folder = "pruning",
  };
  return info;
}

}  // namespace slmc::pruning
