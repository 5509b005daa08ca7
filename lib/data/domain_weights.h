#pragma once
// Weights of domains that follow how far each is behind a reference: dynamic batch loading [Xia et al. 2023, arXiv:2310.06694, algorithm 1], and
// the losses that a model of some size should reach, from those of its larger relatives.
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/json.h"

namespace slmc::data {

struct WeightRule {
  // Doremi: w_i exp(eta d_i) / sum, from the weights before. Bandit: softmax(w_i + eta d_i), of the published code.
  enum class Kind { Doremi, Bandit };
  Kind kind = Kind::Doremi;
  double eta = 1.0;
  bool clamp = true;          // d_i = max(loss_i - reference_i, 0), as in the paper; without, the signed difference, as in the code
  double smooth = 1e-4;       // then w = (1 - smooth) w + smooth / k, as in the code
};

// The weights after `weights` (all > 0), of sum 1. All vectors are [domains].
std::vector<double> next_weights(const WeightRule& rule, const std::vector<double>& weights, const std::vector<double>& losses,
                                 const std::vector<double>& references);

// loss(N) = c + A N^-b over models of N parameters [Hoffmann et al. 2022, arXiv:2203.15556, with the data term left out].
struct ScalingLaw {
  double a = 0, b = 0, c = 0;      // N counts in units of 1e9
  double residual = 0;             // root mean square of the fit; 0 for three points
  double at(double parameters) const;
};

// Through three points, or least squares over more: for each b the best c and A are linear, and b is searched for in [1e-3, 4]. Error(Data):
// fewer than three points, equal sizes, or losses that do not fall, ever more slowly, with size.
ScalingLaw fit_scaling_law(const std::vector<double>& parameters, const std::vector<double>& losses);

// How much the prediction for `parameters` moves when each loss moves by one: sum of |d prediction / d loss_i|. Large: the points say
// little about that size.
double sensitivity(const std::vector<double>& parameters, const std::vector<double>& losses, double at);

// A file of reference losses: {"losses": {"wiki": 2.1, ...}}, or {"points": [{"parameters": 6.7e9, "losses": {...}}, ...]} with three points
// or more, from which a law for each domain predicts the losses of a model with `parameters`.
struct References {
  std::vector<double> losses;              // in the order of `domains`
  std::map<std::string, ScalingLaw> laws;  // empty when the file gives the losses
  std::map<std::string, double> sensitivities;
};
// Error(Data) with the file and the place: a domain is missing or unknown, a number is not above 0.
References references_from_json(const Json& json, const std::string& file, const std::vector<std::string>& domains, double parameters);

}  // namespace slmc::data
