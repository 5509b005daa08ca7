#include "pruning/width/stability.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "pruning/resample.h"
#include "pruning/width/score.h"

namespace slmc::pruning {
namespace {

using engine::Statistic;

// What a statistic of all windows is made of, and the rows of the windows that count, each as often as it does.
engine::Statistics drawn(const engine::Statistics& measured, const std::vector<std::int64_t>& counts) {
  std::vector<double> weights;
  std::vector<std::int64_t> rows;
  for (std::size_t w = 0; w < counts.size(); ++w) {
    weights.push_back(static_cast<double>(counts[w]) / static_cast<double>(counts.size()));
    rows.insert(rows.end(), static_cast<std::size_t>(counts[w]), static_cast<std::int64_t>(w));
  }
  const at::Tensor weight = at::tensor(weights, at::kDouble), row = at::tensor(rows, at::kLong);
  engine::Statistics out;
  out.tokens = measured.tokens;
  for (const std::string& name : measured.names()) {
    const std::string site = name.substr(0, name.find('/'));
    const auto put = [&](Statistic what, const at::Tensor& value) { out.keep(site + "/" + std::string(to_string(what)), value); };
    const auto is = [&](Statistic what) { return name == site + "/" + std::string(to_string(what)); };
    if (is(Statistic::WindowSquare)) put(Statistic::MeanSquare, at::mv(measured.at(site, Statistic::WindowSquare).t(), weight));
    if (is(Statistic::WindowMean)) put(Statistic::Mean, at::mv(measured.at(site, Statistic::WindowMean).t(), weight));
    if (is(Statistic::WindowAbs)) put(Statistic::WindowAbs, measured.at(site, Statistic::WindowAbs).index_select(0, row));
  }
  return out;
}

std::string kind_of(const std::string& axis) {
  if (axis == "hidden") return axis;
  return axis.ends_with(".q") ? "heads" : axis.substr(axis.rfind('.') + 1);
}

}  // namespace

bool resamples(const Criterion& criterion) { return criterion.wants.inputs() && !criterion.wants.gram && criterion.wants.gradient == GradientScore::None; }

std::map<std::string, Agreement> stability(const ir::Model& model, const Measured& measured, const NarrowSettings& settings, const ir::Plan& plan) {
  const Criterion& chosen = criterion(settings.criterion);
  SLMC_CHECK(resamples(chosen) && settings.stability > 0 && measured.windows > 0);
  std::map<std::string, Agreement> out;
  for (std::int64_t k = 0; k < settings.stability; ++k) {
    const engine::Statistics again = drawn(measured.fit, resampled(measured.windows, settings.seed, k));
    const Scores scores = scores_of(model, again, {}, chosen, settings.aggregate, settings.widths, settings.seed);
    const ir::Plan other = decide(model, scores, settings.widths);
    for (const auto& [axis, kept] : plan.take) {
      const std::int64_t size = model.sizes().of(axis);
      const std::vector<std::int64_t>& now = other.take.at(axis);
      const auto share = 1.0 / static_cast<double>(settings.stability);
      out[axis].kept += share * jaccard(kept, now);
      out[axis].removed += share * jaccard(others(kept, size), others(now, size));
    }
  }
  return out;
}

Json summary(const std::map<std::string, Agreement>& agreements, std::int64_t resamples) {
  struct Sum {
    Agreement sum;
    double least = 2;
    std::string at;
    std::int64_t count = 0;
  };
  std::map<std::string, Sum> kinds;
  for (const auto& [axis, agreement] : agreements) {
    Sum& s = kinds[kind_of(axis)];
    s.sum.kept += agreement.kept, s.sum.removed += agreement.removed;
    ++s.count;
    if (agreement.kept < s.least) s.least = agreement.kept, s.at = axis;
  }
  Json out = {{"resamples", resamples}};
  for (const auto& [kind, s] : kinds) {
    const auto count = static_cast<double>(s.count);
    out[kind] = {{"kept", s.sum.kept / count}, {"removed", s.sum.removed / count}, {"least_kept", s.least}, {"least_at", s.at}};
  }
  return out;
}

}  // namespace slmc::pruning
