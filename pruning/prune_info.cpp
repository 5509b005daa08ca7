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
              {.name = "criterion", .type = Type::Choice, .fallback = "wanda", .help = "Which channels and groups matter.",
               .choices = {"random", "magnitude", "wanda"}, .only_beside = "ffn, kv"},
              {.name = "refit", .type = Type::Boolean, .fallback = "true",
               .help = "Let the kept channels take over what the removed ones did, by least squares on calibration text.",
               .only_beside = "ffn, kv"},
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
              {.setting = "refit", .name = "true", .summary = "least squares centred on the old weights, for ffn.down and attn.o",
               .paper = "after He et al. 2017, arXiv:1707.06168, sec. 3.1", .needs = {.calib = true, .passes = 0.2}},
              {.setting = "keep", .name = "rank", .summary = "the first merges, which the tokenizer's makers found the most frequent", .paper = "", .needs = {}},
              {.setting = "keep", .name = "count", .summary = "what the calibration text holds, and what tokens of that rank do on average",
               .paper = "isotonic regression: Ayer et al. 1955", .needs = {.calib = true}},
          },
      .effects = {{Effect::Kind::Resize, "ffn", "ffn"}, {Effect::Kind::Resize, "kv", "kv"}, {Effect::Kind::Resize, "vocab", "vocab"}},
      .folder = "pruning",
  };
  return info;
}

}  // namespace slmc::pruning
