#include "data/mixture.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"

namespace slmc::data {
namespace {

using Era = Mixture::Era;

std::vector<double> shares_of(const std::vector<double>& weights) {
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<double> out;
  for (const double w : weights) {
    SLMC_CHECK(w > 0 && std::isfinite(w));
    out.push_back(w / total);
  }
  return out;
}

// Windows of the era until the domain's next one is due.
double due(const Era& era, std::size_t domain, std::int64_t had) {
  return (static_cast<double>(had) + 0.5 - era.mass[domain]) / era.shares[domain];
}

std::size_t next_domain(const Era& era, const std::vector<std::int64_t>& had) {
  std::size_t first = 0;
  for (std::size_t d = 1; d < had.size(); ++d)
    if (due(era, d, had[d]) < due(era, first, had[first])) first = d;
  return first;
}

std::vector<double> mass_at(const Era& era, std::int64_t index) {
  std::vector<double> out = era.mass;
  for (std::size_t d = 0; d < out.size(); ++d) out[d] += era.shares[d] * static_cast<double>(index - era.first);
  return out;
}

// Start with a few windows less than each domain's mass, which it has had for certain, and deal out the rest in order.
std::vector<std::int64_t> dealt(const Era& era, std::int64_t index) {
  const auto slack = static_cast<std::int64_t>(era.shares.size()) + 2;
  const std::vector<double> mass = mass_at(era, index);
  std::vector<std::int64_t> had = era.had;
  for (std::size_t d = 0; d < had.size(); ++d) had[d] = std::max(had[d], static_cast<std::int64_t>(std::floor(mass[d])) - slack);
  for (std::int64_t all = std::accumulate(had.begin(), had.end(), std::int64_t{0}); all < index; ++all) ++had[next_domain(era, had)];
  return had;
}

}  // namespace

Mixture::Mixture(const std::vector<double>& weights) {
  SLMC_CHECK(!weights.empty());
  eras_.push_back({0, shares_of(weights), std::vector<double>(weights.size(), 0.0), std::vector<std::int64_t>(weights.size(), 0)});
}

void Mixture::change(std::int64_t first, const std::vector<double>& weights) {
  SLMC_CHECK(first >= eras_.back().first && weights.size() == eras_.back().shares.size());
  if (first > eras_.back().first) eras_.push_back({first, {}, mass_at(eras_.back(), first), dealt(eras_.back(), first)});
  eras_.back().shares = shares_of(weights);
}

const Era& Mixture::era_of(std::int64_t index) const {
  const auto later = std::upper_bound(eras_.begin(), eras_.end(), index, [](std::int64_t i, const Era& era) { return i < era.first; });
  return *std::prev(later);
}

std::vector<std::int64_t> Mixture::turns_before(std::int64_t index) const { return dealt(era_of(index), index); }

std::pair<std::int32_t, std::int64_t> Mixture::turn(std::int64_t index) const {
  const std::vector<std::int64_t> had = turns_before(index);
  const std::size_t domain = next_domain(era_of(index), had);
  return {static_cast<std::int32_t>(domain), had[domain]};
}

}  // namespace slmc::data
