#pragma once
// AdamW with decoupled decay [Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2], in one pass over memory, and clipping by the
// global norm [Pascanu et al. 2013, arXiv:1211.5063].
//   m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,  w = w - lr decay w - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
// Differs from the paper: decay is multiplied by the learning rate, as everyone does.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace slmc::engine {

struct Parameter {
  std::string name;            // logical: "block.3.ffn.down"
  at::Tensor value;            // leaf, requires_grad, fp32 or fp64
};

// Parameters that are trained alike.
struct ParameterGroup {
  std::vector<Parameter> parameters;
  double weight_decay = 0.0;
  double lr_factor = 1.0;      // times the schedule's rate
};

struct AdamWSettings {
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
};

class AdamW {
 public:
  AdamW(std::vector<ParameterGroup> groups, const AdamWSettings& settings);

  // Update number `step` (from 0) at the given rate, with gradients multiplied by `factor`; then frees them. A parameter without
  // gradient had no part in the loss and is left as it is.
  void update(std::int64_t step, double rate, double factor);

  // Root of the sum of squares of all gradients. fp64, fixed tiles: the same for any number of threads.
  double gradient_norm() const;

  const std::vector<ParameterGroup>& groups() const { return groups_; }
  // Every tensor that a checkpoint holds: "NAME", "NAME.m", "NAME.v"; same storage, so filling them restores the optimizer.
  std::vector<Parameter> state() const;

 private:
  struct Moments {
    at::Tensor m, v;           // as the parameter
  };
  std::vector<ParameterGroup> groups_;
  std::vector<std::vector<Moments>> moments_;
  AdamWSettings settings_;
};

// Sum of squares of x (contiguous CPU fp32 or fp64, else by ATen), in fp64, by tiles of 65,536 elements added in order.
double sum_of_squares(const at::Tensor& x);

// What gradients are multiplied by so that their norm is at most `most`; 1 when most = 0 (no clipping).
double clip_factor(double norm, double most);

}  // namespace slmc::engine
