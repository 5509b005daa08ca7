#include "stage/training.h"

namespace slmc::stage {

std::vector<Setting> training_settings(std::vector<Setting> own) {
  std::vector<Setting> all = std::move(own);
  const std::vector<Setting> shared = {
      {.name = "tokens", .type = Type::Count, .fallback = "300k", .help = "How many tokens to train on; data that is shorter is read again in another order.",
       .least = 1, .most = 1e15, .unit = "tokens"},
      {.name = "lr", .type = Type::Number, .fallback = "auto",
       .help = "Peak learning rate; auto: 2e-4 when 15 % or more of the parameters are gone, 1e-4 below, 2e-3 from scratch, 3e-4 with lora.", .least = 0, .most = 1,
       .may_be_auto = true},
      {.name = "batch_tokens", .type = Type::Count, .fallback = "auto",
       .help = "Tokens of one update, rounded to whole windows; auto: at least 64 updates, at most 8192 tokens each.", .least = 1, .most = 1e12,
       .unit = "tokens", .may_be_auto = true},
      {.name = "schedule", .type = Type::Choice, .fallback = "wsd", .help = "Learning rate over time: warm-up, stable, decay; cosine; constant.",
       .choices = {"wsd", "cosine", "constant"}},
      {.name = "warmup", .type = Type::Number, .fallback = "0.1", .help = "Share of the updates that warm up.", .least = 0, .most = 1},
      {.name = "decay", .type = Type::Number, .fallback = "0.4", .help = "wsd: share of the updates, at the end, in which the rate falls.", .least = 0,
       .most = 1, .only_beside = "schedule", .only_values = {"wsd"}},
      {.name = "decay_shape", .type = Type::Choice, .fallback = "1-sqrt", .help = "wsd: how the rate falls.",
       .choices = {"1-sqrt", "exponential", "linear"}, .only_beside = "schedule", .only_values = {"wsd"}},
      {.name = "final_lr", .type = Type::Number, .fallback = "auto",
       .help = "Rate at the very end as a share of the peak; auto: 0 for wsd, 0.1 for cosine, 0.03 for an exponential decay.", .least = 0, .most = 1,
       .may_be_auto = true, .only_beside = "schedule", .only_values = {"wsd", "cosine"}},
      {.name = "weight_decay", .type = Type::Number, .fallback = "0.01", .help = "Decoupled decay of matrices; norms, biases and embeddings have none.",
       .least = 0, .most = 10},
      {.name = "clip", .type = Type::Number, .fallback = "1.0", .help = "Largest norm of the gradient; 0 never clips.", .least = 0, .most = 1e9},
      {.name = "micro_batch", .type = Type::Integer, .fallback = "auto",
       .help = "Windows of one forward pass; the result does not depend on it beyond rounding; auto: about 2048 tokens.", .least = 1, .most = 1 << 20,
       .unit = "windows", .may_be_auto = true},
      {.name = "recompute", .type = Type::Boolean, .fallback = "false",
       .help = "Keep only the inputs of blocks for the backward pass: a third more time, far less memory."},
      {.name = "documents", .type = Type::Boolean, .fallback = "true", .help = "Attention and predictions stay inside a document of a window."},
      {.name = "freeze", .type = Type::Text, .help = "Tensors that stay as they are: patterns over logical names, with commas: embed,block.0.*"},
      {.name = "valid", .type = Type::Data,
       .help = "Held-out text of the training data's domains, `samples` windows of each, on which losses are measured while it trains."},
      {.name = "save_every", .type = Type::Integer, .fallback = "auto", .help = "Updates between checkpoints; auto: a fifth of the run.", .least = 1,
       .most = 1e15, .unit = "updates", .may_be_auto = true},
      {.name = "dtype", .type = Type::Choice, .fallback = "f32", .help = "Type of the weights that are written.", .choices = {"f32", "bf16", "f16"}},
  };
  all.insert(all.end(), shared.begin(), shared.end());
  return all;
}

std::vector<Setting> with_recovery_settings(std::vector<Setting> own) {
  std::vector<Setting> all = std::move(own);
  const std::vector<std::string> best = {"best"};
  const std::vector<Setting> shared = {
      {.name = "lora", .type = Type::Integer,
       .help = "Rank of low-rank adapters that are trained in place of the weights, then merged into them [Hu et al. 2021, arXiv:2106.09685]; unset trains the weights.",
       .least = 1, .most = 1 << 16},
      {.name = "lora_alpha", .type = Type::Number, .fallback = "16", .help = "Adapters act times lora_alpha / lora.", .least = 1e-6, .most = 1e6, .only_beside = "lora"},
      {.name = "lora_targets", .type = Type::Text,
       .help = "Matrices that are adapted: patterns over logical names, with commas: block.*.attn.*,block.3.ffn.up; unset: every matrix of the blocks.",
       .only_beside = "lora"},
      {.name = "keep", .type = Type::Choice, .fallback = "last", .help = "Which weights the result has: those of the end, or those with the lowest loss on `valid`.",
       .choices = {"last", "best"}},
      {.name = "valid_every", .type = Type::Integer, .fallback = "auto", .help = "Updates between two measurements on `valid`; auto: a tenth of the run.", .least = 1,
       .most = 1e15, .unit = "updates", .may_be_auto = true, .only_beside = "keep", .only_values = best},
      {.name = "patience", .type = Type::Integer, .help = "End the run after so many measurements without a lower loss; unset goes on to the end.", .least = 1,
       .most = 1e9, .unit = "measurements", .only_beside = "keep", .only_values = best},
  };
  all.insert(all.end(), shared.begin(), shared.end());
  return all;
}

std::vector<Setting> with_domain_settings(std::vector<Setting> own) {
  std::vector<Setting> all = std::move(own);
  const std::vector<std::string> dynamic = {"doremi", "bandit"};
  const std::vector<Setting> shared = {
      {.name = "domains", .type = Type::Choice, .fallback = "constant",
       .help = "Weights of the training data's domains over time: as given; or following how far each is behind its reference loss, times exp of it (doremi) or "
               "softmax of both (bandit) [Xia et al. 2023, arXiv:2310.06694].",
       .choices = {"constant", "doremi", "bandit"}},
      {.name = "reference", .type = Type::Model, .help = "The model whose losses on `valid` are the references: the one that this was cut from.",
       .only_beside = "domains", .only_values = dynamic},
      {.name = "reference_losses", .type = Type::Path,
       .help = "A JSON file in place of `reference`: losses by domain, or losses of three models and more, from which a scaling law predicts this size.",
       .only_beside = "domains", .only_values = dynamic},
      {.name = "domains_start", .type = Type::Choice, .fallback = "data",
       .help = "Where the weights begin: with those of the data, or with those that the model's last training ended with.", .choices = {"data", "model"},
       .only_beside = "domains", .only_values = dynamic},
      {.name = "domains_every", .type = Type::Integer, .fallback = "50", .help = "Updates between two changes of the weights.", .least = 1, .most = 1e15,
       .unit = "updates", .only_beside = "domains", .only_values = dynamic},
      {.name = "domains_clamp", .type = Type::Boolean, .fallback = "true", .help = "Domains that are ahead of their reference count as level with it.",
       .only_beside = "domains", .only_values = dynamic},
      {.name = "domains_rate", .type = Type::Number, .fallback = "1.0", .help = "How strongly weights follow the losses.", .least = 0, .most = 1e3,
       .only_beside = "domains", .only_values = dynamic},
      {.name = "domains_smooth", .type = Type::Number, .fallback = "1e-4", .help = "Share of the weights that is spread evenly after each change.", .least = 1e-8,
       .most = 1, .only_beside = "domains", .only_values = dynamic},
  };
  all.insert(all.end(), shared.begin(), shared.end());
  return all;
}

}  // namespace slmc::stage
