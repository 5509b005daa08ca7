#include "engine/train/next_token.h"

#include "engine/train/head_loss.h"

namespace slmc::engine {

std::int64_t predictions(const Batch& batch) { return next_tokens(batch).ge(0).sum().item<std::int64_t>(); }

at::Tensor training_states(const ModelRef& model, const Batch& batch, bool recompute, const Gates* gates) {
  Pass pass;
  pass.gates = gates;
  pass.document = batch.document;
  pass.recompute = recompute;
  return hidden_states(model.arch, model.weights, batch.ids, pass);
}

std::int64_t NextToken::count(const Batch& batch) const { return predictions(batch); }

std::vector<double> NextToken::add_gradients(const Batch& batch, double scale, double) {
  const at::Tensor hidden = training_states(model_, batch, recompute_);
  const HeadLoss out = head_loss(
      {.hidden = hidden, .head = head_weight(model_.arch, model_.weights), .target = next_tokens(batch), .scale = scale}, loss_);
  out.loss.backward();
  return out.sums;
}

}  // namespace slmc::engine
