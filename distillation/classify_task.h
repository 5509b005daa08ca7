#pragma once
// Tuning a decoder to classify [Yuan et al. 2024, arXiv:2402.11700; prompts after Schick and Schuetze 2021, arXiv:2001.07676]: cross-entropy over the
// classes at the last position of each piece, through the words of a prompt or through a head of its own.
#include "engine/classify.h"
#include "engine/train/task.h"

namespace slmc::distillation {

// Pieces over and over, each epoch in another order drawn from the seed.
class PieceBatches : public engine::Batches {
 public:
  // What `classifier` refers to must outlive the batches.
  PieceBatches(const engine::Classifier& classifier, std::vector<data::Piece> pieces, std::uint64_t seed, at::Device device);
  engine::Batch at(std::int64_t first, std::int64_t windows) const override;
  std::int64_t window() const;             // tokens of one piece with its template
  std::int64_t epoch() const { return static_cast<std::int64_t>(pieces_.size()); }
  std::string content_hash() const;        // of all tokens and labels

 private:
  const engine::Classifier& classifier_;
  std::vector<data::Piece> pieces_;
  std::uint64_t seed_;
  at::Device device_;
};

class Classify : public engine::Task {
 public:
  // Both must outlive the task. A head is trained when it requires gradients.
  Classify(engine::ModelRef model, const engine::Classifier& classifier, bool recompute);
  std::vector<std::string> terms() const override { return {"loss", "accuracy"}; }
  std::int64_t count(const engine::Batch& batch) const override { return batch.ids.size(0); }
  std::vector<double> add_gradients(const engine::Batch& batch, double scale, double progress) override;

 private:
  engine::ModelRef model_;
  const engine::Classifier& classifier_;
  bool recompute_;
};

}  // namespace slmc::distillation
