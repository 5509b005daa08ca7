#pragma once
// Forward KL of the teacher p to the student q at a temperature, mixed with cross-entropy [Hinton et al. 2015, arXiv:1503.02531, section 2],
// in nats, SUMMED over rows; the trainer divides once, globally.
//
//   L = sum_n (1 - a) CE_n + a tau^2 KL_n,   KL_n = sum_v p (log p - log q),   p = softmax(t / tau), q = softmax(z / tau)
//   CE_n = -log softmax(z)_y at temperature 1               dL/dz = (1 - a) (softmax(z) - onehot(y)) + a tau (q - p)
//
// Differs from the paper: tau^2 belongs to the KL term, so that its weight against CE does not move with the temperature.
// When the vocabularies differ in size, KL is taken over the first min(V, V_T) entries with both sides normalised over these;
// CE is taken over all V. Softmax statistics are fp32 folded into fp64.
// (L1) L(z, z) = 0 and dL/dz = 0 exactly, when a = 1   (L2) KL >= 0 (rounding below zero is cut)   (L3) adding a constant to a row changes nothing
// (L4) rows left out give nothing (head_loss)   (L5) independent of the chunk size (head_loss)
// (L6) p = 0 adds 0; q = 0 where p > 0 is Error(Numeric); never NaN
#include "engine/train/head_loss.h"

namespace slmc::distillation {

struct ForwardKlSettings {
  double temperature = 1.0;   // tau > 0
  double kl_weight = 1.0;     // a in [0, 1]
};

class ForwardKl : public engine::RowLoss {
 public:
  explicit ForwardKl(const ForwardKlSettings& settings);
  std::vector<std::string> terms() const override { return {"loss", "kl", "ce"}; }   // "kl" includes tau^2
  void apply(at::Tensor student, at::Tensor teacher, const at::Tensor& target, double scale, at::Tensor sums) const override;

 private:
  ForwardKlSettings settings_;
};

}  // namespace slmc::distillation
