#include "distillation/classify_task.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/nll_loss.h>

#include "core/error.h"
#include "core/hash.h"
#include "core/rng.h"
#include "engine/train/next_token.h"

namespace slmc::distillation {

PieceBatches::PieceBatches(const engine::Classifier& classifier, std::vector<data::Piece> pieces, std::uint64_t seed, at::Device device)
    : classifier_(classifier), pieces_(std::move(pieces)), seed_(seed), device_(device) {
  SLMC_CHECK(!pieces_.empty());
}

std::int64_t PieceBatches::window() const {
  return static_cast<std::int64_t>(classifier_.before.size() + classifier_.after.size()) + classifier_.seq;
}

engine::Batch PieceBatches::at(std::int64_t first, std::int64_t windows) const {
  engine::Batch batch{at::empty({windows, window()}, at::kLong), {}, at::empty({windows}, at::kLong)};
  std::vector<std::int64_t> order;
  for (std::int64_t i = 0; i < windows; ++i) {
    const std::int64_t turn = (first + i) / epoch(), place = (first + i) % epoch();
    if (i == 0 || place == 0) order = Rng(seed_, static_cast<std::uint64_t>(turn)).permutation(epoch());
    const data::Piece& piece = pieces_[static_cast<std::size_t>(order[static_cast<std::size_t>(place)])];
    const std::vector<std::int32_t> ids = engine::tokens_of(classifier_, piece);
    std::copy(ids.begin(), ids.end(), batch.ids.mutable_data_ptr<std::int64_t>() + i * window());
    batch.label.mutable_data_ptr<std::int64_t>()[i] = piece.label;
  }
  batch.ids = batch.ids.to(device_);
  batch.label = batch.label.to(device_);
  return batch;
}

std::string PieceBatches::content_hash() const {
  Sha256 hash;
  for (const data::Piece& piece : pieces_) {
    hash.add_number(static_cast<std::uint64_t>(piece.label));
    for (const std::int32_t id : engine::tokens_of(classifier_, piece)) hash.add_number(static_cast<std::uint64_t>(id));
  }
  return hash.add_number(seed_).hex();
}

Classify::Classify(engine::ModelRef model, const engine::Classifier& classifier, bool recompute)
    : model_(model), classifier_(classifier), recompute_(recompute) {}

std::vector<double> Classify::add_gradients(const engine::Batch& batch, double scale, double) {
  const at::Tensor hidden = engine::training_states(model_, batch, recompute_);
  const at::Tensor log_p = engine::class_logits(classifier_, model_, hidden.select(1, hidden.size(1) - 1)).log_softmax(1);     // [B, classes]
  const at::Tensor loss = at::nll_loss(log_p, batch.label, {}, at::Reduction::Sum);
  (loss * scale).backward();
  const auto right = log_p.argmax(1).eq(batch.label).sum().item<std::int64_t>();
  return {loss.to(at::kDouble).item<double>(), static_cast<double>(right)};
}

}  // namespace slmc::distillation
