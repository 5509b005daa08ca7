#include "distillation/ops.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "distillation/classify.h"
#include "distillation/distill_info.h"
#include "distillation/distill_task.h"
#include "distillation/train_info.h"
#include "engine/train/next_token.h"
#include "engine/train/parameters.h"
#include "engine/train/training.h"
#include "ir/cost.h"
#include "ir/model.h"
#include "ir/tokens.h"

namespace slmc::distillation {
namespace {

double parameters_of(const ir::Model& model) { return static_cast<double>(ir::cost(model).parameters); }

Json distill(engine::OpContext& context) {
  const stage::Settings& s = context.job.settings;
  const ir::Model& student = context.model();
  const ir::Model teacher = context.other("teacher");
  ir::require_same_tokens(student, teacher);
  engine::Loaded loaded = engine::load(teacher, at::kFloat, context.device);
  const ForwardKlSettings loss{s.number("temperature"), s.number("kl_weight")};
  engine::TrainingJob job{.base = student};
  job.removed = 1 - parameters_of(student) / parameters_of(teacher);
  job.teacher = teacher.content_hash();
  job.task = [&](engine::ModelRef model) { return std::make_unique<Distill>(model, loaded, loss, s.boolean("recompute")); };
  return engine::train_and_write(context, job);
}

Json train(engine::OpContext& context) {
  const stage::Settings& s = context.job.settings;
  const bool random = s.text("init") == "random";
  const std::uint64_t seed = context.job.seed;
  const auto draw = [seed](const ir::TensorSpec& spec, std::int64_t blocks) { return engine::drawn_weights(spec, blocks, seed); };
  const ir::Model base = random ? ir::from_config(context.job.model, draw, {.templates = context.job.templates}) : context.model();
  if (s.text("objective") == "classify") return train_classifier(context, base, random);
  engine::TrainingJob job{.base = base};
  job.from_scratch = random;
  job.task = [&](engine::ModelRef model) { return std::make_unique<engine::NextToken>(model, s.boolean("recompute")); };
  return engine::train_and_write(context, job);
}

}  // namespace

void add_ops(engine::Ops& ops) {
  engine::add_op(ops, distill_info(), distill);
  engine::add_op(ops, train_info(), train);
}

}  // namespace slmc::distillation
