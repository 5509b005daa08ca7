#include "distillation/train_info.h"

#include "stage/training.h"

namespace slmc::distillation {

using stage::Type;

const stage::StageInfo& train_info() {
  static const std::vector<std::string> classify = {"classify"};
  static const stage::StageInfo info = {
      .name = "train",
      .summary = "train on text: recovery after a cut, a small model from scratch, or a classifier from few examples",
      .needs = {.train = true},
      .output = "hf",
      .settings = stage::training_settings(stage::with_domain_settings(stage::with_recovery_settings({
          {.name = "init", .type = Type::Choice, .fallback = "model",
           .help = "Where weights start: those of the model, or random ones for a folder that has config.json and a tokenizer.",
           .choices = {"model", "random"}},
          {.name = "objective", .type = Type::Choice, .fallback = "next-token",
           .help = "What is learned: the next token of the text; or the class of a piece of it, a few pieces of each class being shown.",
           .choices = {"next-token", "classify"}},
          {.name = "classifier", .type = Type::Choice, .fallback = "prompt",
           .help = "What tells the class: the logits of one word for each, behind a template; or a new linear head on the last hidden state.",
           .choices = {"prompt", "head"}, .only_beside = "objective", .only_values = classify},
          {.name = "template", .type = Type::Text, .fallback = "{text}",
           .help = "The text around a piece, which stands for {text}; its last token is where the class is read.", .only_beside = "objective", .only_values = classify},
          {.name = "words", .type = Type::Text,
           .help = "The words that stand for the classes, with commas, in the order of the classes' names; unset: the first word of each name that no other name has.",
           .only_beside = "objective", .only_values = classify},
          {.name = "shots", .type = Type::Integer, .fallback = "16", .help = "Pieces of each class to tune on.", .least = 1, .most = 1 << 20, .unit = "pieces",
           .only_beside = "objective", .only_values = classify},
          {.name = "held_out", .type = Type::Number, .fallback = "0.5",
           .help = "Share of each class's text, at its end, that no piece for tuning comes from; `eval --classify` takes its pieces from there.", .least = 0.01,
           .most = 0.99, .only_beside = "objective", .only_values = classify},
          {.name = "epochs", .type = Type::Integer, .fallback = "4", .help = "How often each piece is shown; it stands in place of `tokens`.", .least = 1, .most = 1 << 20,
           .only_beside = "objective", .only_values = classify},
          {.name = "head_lr", .type = Type::Number, .fallback = "1e-3", .help = "Peak learning rate of a new head; it follows the schedule of lr.", .least = 1e-8, .most = 1,
           .only_beside = "classifier", .only_values = {"head"}},
      }))),
      .methods = {{.setting = "init", .name = "model", .summary = "go on from the model's weights"},
                  {.setting = "init",
                   .name = "random",
                   .summary = "draw all weights anew; the folder needs config.json and a tokenizer only",
                   .paper = "Radford et al. 2019, section 2.3",
                   .needs = {.drawn = true}},
                  {.setting = "objective", .name = "next-token", .summary = "the text's own next token"},
                  {.setting = "objective", .name = "classify", .summary = "few-shot classification of labelled pieces", .paper = "Yuan et al. 2024, arXiv:2402.11700"},
                  {.setting = "classifier", .name = "prompt", .summary = "template and words, no new weights", .paper = "Schick and Schuetze 2021, arXiv:2001.07676"},
                  {.setting = "classifier", .name = "head", .summary = "a new linear map [classes, hidden] at the last position", .paper = "Radford et al. 2018, section 3.2"}},
      .trains = true,
      .folder = "distillation",
  };
  return info;
}

}  // namespace slmc::distillation
