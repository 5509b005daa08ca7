#pragma once
// The tiny trained model under masks: its texts, training without files, and a magnitude plan written out with loops.
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <numeric>
#include <nlohmann/json.hpp>

#include "engine/evaluate.h"
#include "engine/train/next_token.h"
#include "engine/train/parameters.h"
#include "engine/train/trainer.h"
#include "engine/train/window_batches.h"
#include "ir/plan.h"
#include "methods_testing.h"
#include "pruning/masks/shear_task.h"

namespace slmc::testing_masks {

using testing_methods::SilentEvents;

inline const std::string kRoot = SLMC_SOURCE_DIR, kTiny = kRoot + "/tests/data/tiny-trained";

inline engine::WindowBatches texts(const std::vector<std::string>& files, std::int64_t seq, std::uint64_t seed) {
  Json mix = Json::object();
  for (const std::string& file : files) mix[file] = {{"files", {kRoot + "/configs/data/" + file}}};
  const data::DataSpec spec = data::data_spec_from_json({{"mix", mix}, {"seq", seq}, {"seed", seed}}, "test", "data");
  return {data::WindowSource(spec, *ir::load(kTiny).tokenizer()), true, at::kCPU};
}

inline double held_out_nll(const ir::Model& model) {
  engine::Loaded loaded = engine::load(model, at::kFloat, at::kCPU);
  SilentEvents events;
  return engine::score_windows(loaded, texts({"heldout.jsonl"}, 128, 0).at(0, 64).ids, events).mean();
}

struct Training {
  std::int64_t steps = 100, batch = 8, seq = 64;
  double rate = 1e-3, ramp = 0.2, mask_rate = 1.0;
  std::uint64_t seed = 0;
  std::int64_t first = 0;         // the first window: a second leg goes on in the text
};

// Windows `first` and on of another source.
struct From : engine::Batches {
  From(const engine::Batches& all, std::int64_t first) : all_(all), first_(first) {}
  engine::Batch at(std::int64_t i, std::int64_t n) const override { return all_.at(first_ + i, n); }
  const engine::Batches& all_;
  std::int64_t first_;
};

inline engine::TrainResult train(engine::Task& task, const std::vector<engine::ParameterGroup>& groups, const Training& how) {
  engine::TrainSettings settings;
  settings.batch = settings.micro_batch = how.batch;
  settings.schedule = {engine::Schedule::Kind::Wsd, engine::Schedule::Decay::OneMinusSqrt, how.rate, 0.0, how.steps, how.steps / 10, 2 * how.steps / 5};
  const engine::WindowBatches all =
      texts({"train/wiki.jsonl", "train/books.jsonl", "train/reviews.jsonl", "train/speeches.jsonl", "train/code.jsonl"}, how.seq, how.seed);
  engine::Single alone;
  SilentEvents events;
  return engine::train(task, groups, From(all, how.first), settings, alone, events);
}

// Continued training on the next token.
inline ir::Model trained(const ir::Model& model, const Training& how) {
  engine::Loaded loaded = engine::load(model, at::kFloat, at::kCPU, engine::Storage::Owned);
  const auto groups = engine::parameter_groups(loaded.weights, 0.01, {});
  engine::NextToken task(loaded, false);
  train(task, groups, how);
  return engine::with_values(model, groups);
}

struct Sheared {
  ir::Model trained;              // whole, with the weights that training left
  pruning::Masks masks;
  ir::Model cut;
};

inline Sheared sheared(const ir::Model& model, const pruning::Target& target, const Training& how) {
  engine::Loaded loaded = engine::load(model, at::kFloat, at::kCPU, engine::Storage::Owned);
  auto groups = engine::parameter_groups(loaded.weights, 0.01, {});
  pruning::Masks masks(model.sizes(), target, how.seed, at::kFloat, at::kCPU);
  pruning::Shear task(loaded, masks, how.ramp, false);
  auto all = groups;
  for (auto& group : masks.groups(how.mask_rate / how.rate, how.mask_rate / how.rate)) all.push_back(std::move(group));
  train(task, all, how);
  ir::Model whole = engine::with_values(model, groups);
  return {whole, masks, ir::apply(masks.plan(whole), whole)};
}

}  // namespace slmc::testing_masks
