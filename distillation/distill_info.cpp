#include "distillation/distill_info.h"

#include "stage/training.h"

namespace slmc::distillation {

using stage::Type;

const stage::StageInfo& distill_info() {
  static const stage::StageInfo info = {
      .name = "distill",
      .summary = "train the model to predict as its teacher does [Hinton et al. 2015, arXiv:1503.02531]",
      .needs = {.train = true, .teacher = true},
      .output = "hf",
      .settings = stage::training_settings(stage::with_recovery_settings({
          {.name = "teacher", .type = Type::Model, .help = "The model to learn from: the whole one that this was made from, or any with its tokenizer.",
           .required = true},
          {.name = "kl_weight", .type = Type::Number, .fallback = "0.9",
           .help = "Weight of the teacher's distribution; the rest is the weight of the text's own next token.", .least = 0, .most = 1},
          {.name = "temperature", .type = Type::Number, .fallback = "1.0", .help = "Softens both distributions before they are compared.", .least = 0.05,
           .most = 100},
      })),
      .trains = true,
      .folder = "distillation",
  };
  return info;
}

}  // namespace slmc::distillation
