#pragma once
// Small made-up stages for the tests of recipe: one for each thing that the decoder, the resolver and the
// runner must follow.
#include "stage/info.h"

namespace slmc {

inline stage::Registry test_registry() {
  using stage::Effect;
  using stage::Type;
  stage::Registry registry;
  registry.add(
      {.name = "drop",
       .summary = "remove layers",
       .output = "hf",
       .settings =
           {{.name = "layers",
             .type = Type::Integer,
             .help = "How many layers go.",
             .least = 1,
             .most = 1000,
             .unit = "layers"},
            {.name = "list", .type = Type::Integers, .help = "These layers go.", .least = 0, .most = 1000},
            {.name = "search",
             .type = Type::Choice,
             .fallback = "influence",
             .help = "How they are chosen.",
             .choices = {"influence", "greedy-kl", "list"}}},
       .methods = {{.setting = "search",
                    .name = "greedy-kl",
                    .summary = "by KL",
                    .paper = "",
                    .needs = {.calib = true}}},
       .effects = {{Effect::Kind::RemoveCount, "layers", "block"},
                   {Effect::Kind::RemoveList, "list", "block"}},
       .folder = "pruning"});
  registry.add(
      {.name = "prune",
       .summary = "cut the width",
       .output = "hf",
       .settings =
           {{.name = "ffn",
             .type = Type::Integer,
             .help = "New feed-forward width.",
             .least = 1,
             .most = 1 << 20,
             .unit = "channels"},
            {.name = "kv",
             .type = Type::Integer,
             .help = "New number of key/value groups.",
             .least = 1,
             .most = 4096},
            {.name = "criterion",
             .type = Type::Choice,
             .fallback = "magnitude",
             .help = "How channels are ranked.",
             .choices = {"magnitude", "wanda", "random"}},
            {.name = "refit", .type = Type::Boolean, .fallback = "true", .help = "Refit what follows."},
            {.name = "align",
             .type = Type::Integer,
             .fallback = "auto",
             .help = "Widths become multiples of this.",
             .least = 1,
             .most = 4096,
             .may_be_auto = true}},
       .methods = {{.setting = "criterion",
                    .name = "wanda",
                    .summary = "weight times activation",
                    .paper = "",
                    .needs = {.calib = true}}},
       .effects = {{Effect::Kind::Resize, "ffn", "ffn"}, {Effect::Kind::Resize, "kv", "kv"}},
       .folder = "pruning"});
  registry.add(
      {.name = "distill",
       .summary = "learn from a teacher",
       .needs = {.train = true, .teacher = true},
       .output = "hf",
       .settings = {{.name = "teacher", .type = Type::Model, .help = "Whose distribution is learnt."},
                    {.name = "tokens",
                     .type = Type::Count,
                     .fallback = "100k",
                     .help = "Training tokens.",
                     .least = 1,
                     .unit = "tokens"},
                    {.name = "lr",
                     .type = Type::Number,
                     .fallback = "1e-4",
                     .help = "Peak learning rate.",
                     .least = 0,
                     .most = 1},
                    {.name = "replay", .type = Type::Data, .help = "More training data."}},
       .trains = true,
       .folder = "distillation"});
  registry.add({.name = "quantize",
                .summary = "fewer bits",
                .settings = {{.name = "method",
                              .type = Type::Choice,
                              .fallback = "rtn",
                              .help = "How codes are found.",
                              .choices = {"rtn", "gptq"}},
                             {.name = "to",
                              .type = Type::Choice,
                              .fallback = "gguf",
                              .help = "Container.",
                              .choices = {"gguf", "packed"}},
                             {.name = "type",
                              .type = Type::Choice,
                              .fallback = "q4_0",
                              .help = "Stored type.",
                              .choices = {"q4_0", "q8_0"}},
                             {.name = "group",
                              .type = Type::Integer,
                              .fallback = "auto",
                              .help = "Weights that share a scale.",
                              .least = 1,
                              .most = 4096,
                              .may_be_auto = true},
                             {.name = "keep_under", .type = Type::Bytes, .help = "Most bytes."},
                             {.name = "plan", .type = Type::Path, .help = "Replay this plan."}},
                .methods = {{.setting = "method",
                             .name = "gptq",
                             .summary = "column by column",
                             .paper = "",
                             .needs = {.calib = true}}},
                .quantizes = true,
                .folder = "quantization"});
  registry.add({.name = "convert",
                .summary = "another container",
                .needs = {.dense = false, .engine = false},
                .settings = {{.name = "to",
                              .type = Type::Choice,
                              .fallback = "hf",
                              .help = "Container.",
                              .choices = {"hf", "gguf"}},
                             {.name = "type",
                              .type = Type::Choice,
                              .help = "Stored type.",
                              .choices = {"f32", "f16", "bf16", "q8_0"}}}});
  registry.add({.name = "edit",
                .summary = "as a plan says",
                .needs = {.dense = false, .engine = false},
                .output = "hf",
                .settings = {{.name = "plan", .type = Type::Path, .help = "The plan.", .required = true}}});
  return registry;
}

// The same with a stage that may draw its weights.
inline stage::Registry test_registry_with_train() {
  stage::Registry registry = test_registry();
  registry.add({.name = "train",
                .summary = "learn from text",
                .needs = {.train = true},
                .output = "hf",
                .settings = {{.name = "init",
                              .type = stage::Type::Choice,
                              .fallback = "model",
                              .help = "Where weights start.",
                              .choices = {"model", "random"}}},
                .methods = {{.setting = "init", .name = "random", .summary = "drawn", .paper = "", .needs = {.drawn = true}}},
                .trains = true,
                .folder = "distillation"});
  return registry;
}

}  // namespace slmc
