#include "data/domain_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/error.h"

namespace slmc::data {
namespace {

constexpr double kUnit = 1e9, kLeastB = 1e-3, kMostB = 4;

// exp(x_i) / sum exp(x_j)
std::vector<double> softmax(std::vector<double> x) {
  const double most = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (double& v : x) sum += v = std::exp(v - most);
  for (double& v : x) v /= sum;
  return x;
}

// The best c and A for this b, and the sum of squares that they leave.
std::pair<ScalingLaw, double> with_b(const std::vector<double>& n, const std::vector<double>& losses, double b) {
  const double count = static_cast<double>(n.size());
  std::vector<double> x;
  for (const double v : n) x.push_back(std::pow(v, -b));
  const double x0 = std::accumulate(x.begin(), x.end(), 0.0) / count, l0 = std::accumulate(losses.begin(), losses.end(), 0.0) / count;
  double xx = 0, xl = 0, left = 0;
  for (std::size_t i = 0; i < x.size(); ++i) xx += (x[i] - x0) * (x[i] - x0), xl += (x[i] - x0) * (losses[i] - l0);
  ScalingLaw law{.a = xl / xx, .b = b};
  law.c = l0 - law.a * x0;
  for (std::size_t i = 0; i < x.size(); ++i) left += std::pow(losses[i] - law.c - law.a * x[i], 2);
  law.residual = std::sqrt(left / count);
  return {law, left};
}

void require_points(const std::vector<double>& n, const std::vector<double>& losses) {
  SLMC_CHECK(n.size() == losses.size());
  if (n.size() < 3) throw Error(ErrorKind::Data, fmt::format("a scaling law must have three points or more, but has {}", n.size()));
  for (std::size_t i = 0; i + 1 < n.size(); ++i) {
    if (n[i] == n[i + 1]) throw Error(ErrorKind::Data, fmt::format("the points of a scaling law must differ in size, but two have {:.4g} parameters", n[i] * kUnit));
  }
}

// Ascending by size, sizes in units.
std::pair<std::vector<double>, std::vector<double>> ordered(const std::vector<double>& parameters, const std::vector<double>& losses) {
  std::vector<std::size_t> order(parameters.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return parameters[a] < parameters[b]; });
  std::pair<std::vector<double>, std::vector<double>> out;
  for (const std::size_t i : order) out.first.push_back(parameters[i] / kUnit), out.second.push_back(losses[i]);
  return out;
}

// Where f has its least value in [low, high], by golden sections.
template <typename F>
double least(F f, double low, double high) {
  const double ratio = (std::sqrt(5.0) - 1) / 2;
  double a = high - ratio * (high - low), b = low + ratio * (high - low), fa = f(a), fb = f(b);
  for (int i = 0; i < 100; ++i) {
    if (fa <= fb) {
      high = b, b = a, fb = fa, a = high - ratio * (high - low), fa = f(a);
    } else {
      low = a, a = b, fa = fb, b = low + ratio * (high - low), fb = f(b);
    }
  }
  return (low + high) / 2;
}

// Of three points: the b at which (l0 - l1) / (l1 - l2) = (N0^-b - N1^-b) / (N1^-b - N2^-b), by halving. The right side grows with b.
double through_three(const std::vector<double>& n, const std::vector<double>& l) {
  const double want = (l[0] - l[1]) / (l[1] - l[2]);
  const auto ratio = [&](double b) { return (std::pow(n[0], -b) - std::pow(n[1], -b)) / (std::pow(n[1], -b) - std::pow(n[2], -b)); };
  double low = kLeastB, high = kMostB;
  if (!(l[0] > l[1] && l[1] > l[2]) || !(ratio(low) <= want && want <= ratio(high))) {
    throw Error(ErrorKind::Data, fmt::format("the losses of a scaling law must fall ever more slowly with size, but are {:.4f}, {:.4f}, {:.4f}", l[0], l[1], l[2]));
  }
  for (int i = 0; i < 200; ++i) {
    const double middle = (low + high) / 2;
    (ratio(middle) < want ? low : high) = middle;
  }
  return (low + high) / 2;
}

double best_b(const std::vector<double>& n, const std::vector<double>& losses) {
  if (n.size() == 3) return through_three(n, losses);
  constexpr int kGrid = 60;
  const auto left = [&](double log_b) { return with_b(n, losses, std::exp(log_b)).second; };
  const double step = std::log(kMostB / kLeastB) / kGrid;
  int best = 0;
  for (int i = 1; i <= kGrid; ++i) {
    if (left(std::log(kLeastB) + i * step) < left(std::log(kLeastB) + best * step)) best = i;
  }
  const double found = std::exp(least(left, std::log(kLeastB) + std::max(best - 1, 0) * step, std::log(kLeastB) + std::min(best + 1, kGrid) * step));
  if (with_b(n, losses, found).first.a <= 0 || best == 0 || best == kGrid) {
    throw Error(ErrorKind::Data, "the losses of a scaling law must fall ever more slowly with size, but no law c + A / N^b fits them");
  }
  return found;
}

double positive(Fields& fields, const std::string& key) {
  const double value = fields.number(key.c_str());
  if (!(value > 0) || !std::isfinite(value)) fields.fail(key.c_str(), fmt::format("must be above 0, but is {}", value));
  return value;
}

}  // namespace

std::vector<double> next_weights(const WeightRule& rule, const std::vector<double>& weights, const std::vector<double>& losses,
                                 const std::vector<double>& references) {
  SLMC_CHECK(!weights.empty() && weights.size() == losses.size() && weights.size() == references.size());
  std::vector<double> x;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const double behind = losses[i] - references[i], d = rule.clamp ? std::max(behind, 0.0) : behind;
    x.push_back((rule.kind == WeightRule::Kind::Doremi ? std::log(weights[i]) : weights[i]) + rule.eta * d);
  }
  std::vector<double> out = softmax(std::move(x));
  for (double& w : out) w = (1 - rule.smooth) * w + rule.smooth / static_cast<double>(out.size());
  return out;
}

double ScalingLaw::at(double parameters) const { return c + a * std::pow(parameters / kUnit, -b); }

ScalingLaw fit_scaling_law(const std::vector<double>& parameters, const std::vector<double>& losses) {
  const auto [n, l] = ordered(parameters, losses);
  require_points(n, l);
  ScalingLaw law = with_b(n, l, best_b(n, l)).first;
  if (n.size() == 3) law.residual = 0;
  return law;
}

double sensitivity(const std::vector<double>& parameters, const std::vector<double>& losses, double at) {
  constexpr double kStep = 1e-5;
  double sum = 0;
  for (std::size_t i = 0; i < losses.size(); ++i) {
    std::vector<double> up = losses, down = losses;
    up[i] += kStep, down[i] -= kStep;
    sum += std::abs(fit_scaling_law(parameters, up).at(at) - fit_scaling_law(parameters, down).at(at)) / (2 * kStep);
  }
  return sum;
}

References references_from_json(const Json& json, const std::string& file, const std::vector<std::string>& domains, double parameters) {
  Fields fields(json, file, "", ErrorKind::Data);
  if (fields.has("points") == fields.has("losses")) {
    throw Error(ErrorKind::Data, "reference losses must be given as 'losses' or as 'points', but are given as " + std::string(fields.has("losses") ? "both" : "neither")).in_file(file);
  }
  const auto losses_of = [&](const Json& at, const std::string& path) {
    Fields inner(at, file, path, ErrorKind::Data);
    std::vector<double> out;
    for (const std::string& domain : domains) out.push_back(positive(inner, domain));
    inner.finish();
    return out;
  };
  References out;
  if (fields.has("losses")) {
    out.losses = losses_of(fields.at("losses"), "losses");
    fields.finish();
    return out;
  }
  std::vector<double> sizes;
  std::vector<std::vector<double>> losses;
  const Json& points = fields.at("points");
  if (!points.is_array()) fields.fail("points", "must be a list");
  for (std::size_t i = 0; i < points.size(); ++i) {
    Fields point(points[i], file, fmt::format("points[{}]", i), ErrorKind::Data);
    sizes.push_back(positive(point, "parameters"));
    losses.push_back(losses_of(point.at("losses"), fmt::format("points[{}].losses", i)));
    point.finish();
  }
  fields.finish();
  for (std::size_t d = 0; d < domains.size(); ++d) {
    std::vector<double> own;
    for (const std::vector<double>& at : losses) own.push_back(at[d]);
    try {
      out.laws[domains[d]] = fit_scaling_law(sizes, own);
      out.sensitivities[domains[d]] = sensitivity(sizes, own, parameters);
    } catch (const Error& e) {
      throw Error(ErrorKind::Data, fmt::format("{}, for the domain '{}'", e.message(), domains[d])).in_file(file);
    }
    out.losses.push_back(out.laws.at(domains[d]).at(parameters));
  }
  return out;
}

}  // namespace slmc::data
