#include "distillation/train_info.h"

#include "stage/training.h"

namespace slmc::distillation {

using stage::Type;

const stage::StageInfo& train_info() {
  static const stage::StageInfo info = {
      .name = "train",
      .summary = "train on the next token of a text: recovery after a cut, or a small model from scratch",
      .needs = {.train = true},
      .output = "hf",
      .settings = stage::training_settings(stage::with_domain_settings({
          {.name = "init", .type = Type::Choice, .fallback = "model",
           .help = "Where weights start: those of the model, or random ones for a folder that has config.json and a tokenizer.",
           .choices = {"model", "random"}},
      })),
      .methods = {{.setting = "init", .name = "model", .summary = "go on from the model's weights"},
                  {.setting = "init",
                   .name = "random",
                   .summary = "draw all weights anew; the folder needs config.json and a tokenizer only",
                   .paper = "Radford et al. 2019, section 2.3",
                   .needs = {.drawn = true}}},
      .trains = true,
      .folder = "distillation",
  };
  return info;
}

}  // namespace slmc::distillation
