#include "pruning/masks/shear_task.h"

#include <ATen/TensorOperators.h>

#include <algorithm>

#include "engine/train/head_loss.h"
#include "engine/train/next_token.h"

namespace slmc::pruning {

Shear::Shear(engine::ModelRef model, Masks& masks, double ramp, bool recompute)
    : model_(model), masks_(masks), ramp_(ramp), recompute_(recompute) {}

std::vector<std::string> Shear::terms() const {
  std::vector<std::string> out = {"loss", "ce"};
  for (const std::string& kind : masks_.kinds()) {
    for (const char* what : {".sparsity", ".target", ".lambda", ".phi"}) out.push_back(kind + what);
  }
  return out;
}

std::int64_t Shear::count(const engine::Batch& batch) const { return engine::predictions(batch); }

void Shear::begin_step(std::int64_t step, std::int64_t) { masks_.begin_step(step); }

double Shear::ramp_at(double progress) const { return ramp_ > 0 ? std::min(1.0, progress / ramp_) : 1.0; }

std::vector<double> Shear::add_gradients(const engine::Batch& batch, double scale, double progress) {
  const double ramp = ramp_at(progress);
  const engine::Gates gates = masks_.drawn();
  const at::Tensor hidden = engine::training_states(model_, batch, recompute_, &gates), penalty = masks_.penalty(ramp);
  const engine::HeadLoss out = engine::head_loss(
      {.hidden = hidden, .head = engine::head_weight(model_.arch, model_.weights), .target = engine::next_tokens(batch), .scale = scale}, loss_);
  const double rows = static_cast<double>(out.rows);
  (out.loss + penalty * (scale * rows)).backward();        // over the micro-batches of an update, scale * rows sums to 1
  std::vector<double> sums = {out.sums[0] + rows * penalty.item<double>(), out.sums[0]};
  for (const std::string& kind : masks_.kinds()) {
    const KindState s = state_of(masks_, kind, ramp);
    for (const double mean : {s.sparsity, s.target, s.lambda, s.phi}) sums.push_back(rows * mean);
  }
  return sums;
}

}  // namespace slmc::pruning
