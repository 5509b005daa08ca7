#include "pruning/shear_info.h"

#include "stage/training.h"

namespace slmc::pruning {

using stage::Effect;
using stage::Type;

const stage::StageInfo& shear_info() {
  static const stage::StageInfo info = {
      .name = "shear",
      .summary = "learn in training what stays, down to exactly the given shape [Xia et al. 2023, arXiv:2310.06694]",
      .needs = {.train = true},
      .output = "hf",
      .settings = stage::training_settings(stage::with_domain_settings({
          {.name = "hidden", .type = Type::Integer, .help = "Width of the residual stream that stays; unset keeps all.", .least = 1, .most = 1 << 24,
           .unit = "channels"},
          {.name = "blocks", .type = Type::Integer, .help = "How many blocks stay; unset keeps all.", .least = 1, .most = 1 << 16, .unit = "blocks"},
          {.name = "kv", .type = Type::Integer, .help = "Key/value groups, with their query heads, that each block keeps; unset keeps all.", .least = 1,
           .most = 1 << 16, .unit = "groups"},
          {.name = "heads", .type = Type::Integer, .help = "Query heads that each key/value group keeps; unset keeps all.", .least = 1, .most = 1 << 16,
           .unit = "heads"},
          {.name = "ffn", .type = Type::Integer, .help = "Feed-forward channels that each block keeps; unset keeps all.", .least = 1, .most = 1 << 24,
           .unit = "channels"},
          {.name = "align", .type = Type::Integer, .fallback = "auto",
           .help = "The feed-forward width must be a multiple of this; auto: 32, the block of the 4-, 5- and 8-bit containers.", .least = 1, .most = 4096,
           .unit = "channels", .may_be_auto = true},
          {.name = "mask_lr", .type = Type::Number, .fallback = "1.0", .help = "Peak learning rate of the masks; it follows the schedule of lr.",
           .least = 1e-6, .most = 1e3},
          {.name = "multiplier_lr", .type = Type::Number, .fallback = "1.0", .help = "Peak learning rate of the constraints' multipliers.", .least = 1e-6,
           .most = 1e3},
          {.name = "ramp", .type = Type::Number, .fallback = "0.2", .help = "Share of the updates in which the wanted sizes go from the model's to the target's.",
           .least = 0, .most = 1},
      })),
      .effects = {{Effect::Kind::Resize, "hidden", "hidden"},
                  {Effect::Kind::Resize, "blocks", "block"},
                  {Effect::Kind::Resize, "kv", "kv"},
                  {Effect::Kind::Resize, "heads", "q"},
                  {Effect::Kind::Resize, "ffn", "ffn"}},
      .trains = true,
      .folder = "pruning",
  };
  return info;
}

}  // namespace slmc::pruning
