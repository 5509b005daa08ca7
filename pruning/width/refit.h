#pragma once
// Closed-form repair of one linear map y = W x + b: what its inputs can add of what is missing at its output, by least squares centred on
// the weights that are there. The ridge is the one of a few that does best on held-out windows; where none helps there, nothing is changed.
// A map with a bias is fitted with one: then the means are explained by it and the weights see centred inputs.
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "ir/model.h"
#include "pruning/width/maps.h"

namespace slmc::pruning {

// Second moments of a map's inputs x [n] and of what is missing at its output, r = t - (W0 x + b0) [out], for its target t.
struct Missing {
  at::Tensor a;               // E[x xᵀ] [n, n] fp64
  at::Tensor r;               // E[r xᵀ] [out, n] fp64
  double size = 0;            // E|r|²; this and the next only where errors are judged, on held-out windows
  double target = 0;          // E|t|², without the bias where the means are unknown
  at::Tensor mean_x, mean_r;  // [n], [out]; undefined where the map has no bias
};

// The columns of w [rows, all] that `kept` names.
at::Tensor columns_of(const at::Tensor& w, const std::vector<std::int64_t>& kept);

// Of W [out, all] whose inputs but `kept` are removed, from the Gram matrix [all, all] and, for a map with a bias, the means [all] of all
// inputs: W0 = W_K, x = x_K, r = W_P x_P. The second with size and target.
Missing missing_of_cut(const at::Tensor& w, const at::Tensor& gram, const at::Tensor& means, const std::vector<std::int64_t>& kept);
Missing held_out_of_cut(const at::Tensor& w, const at::Tensor& gram, const at::Tensor& means, const std::vector<std::int64_t>& kept);

// E|r - delta x - c|² / E|t|² after W0 became W0 + delta and b0 became b0 + c; c undefined: no bias.
double error_of(const Missing& m, const at::Tensor& delta, const at::Tensor& c);

// One repaired map, errors relative to its target on held-out windows.
struct RefittedMap {
  std::string name;           // "block.3.ffn.down"
  double cut = 0;             // as it was
  double refitted = 0;        // equal to `cut` where the refit did not help
  double ridge = 0;           // 0 where it did not
};

struct Refitted {
  Affine now;                 // rounded as it is stored; undefined what stays as it was
  RefittedMap map;
};

// W0 -> W0 + C_rx (C_xx + ridge m I)⁻¹ (engine/solve.h) with moments about the means for a map with a bias, about zero without one.
// `spec`, `bias_spec`: of the map, for names and stored types; bias_spec null: no bias.
Refitted refit(const Affine& from, const Missing& fit, const Missing& held_out, const ir::TensorSpec& spec, const ir::TensorSpec* bias_spec);

// Only the bias takes over, b0 + E[r] [FLAP, An et al. 2023, arXiv:2312.11983, sec. 3.3].
Refitted refit_bias(const Affine& from, const Missing& fit, const Missing& held_out, const ir::TensorSpec& spec, const ir::TensorSpec& bias_spec);

}  // namespace slmc::pruning
