#include "engine/train/domains.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "engine/evaluate.h"

namespace slmc::engine {
namespace {

// Measuring is part of an update: its own progress would hide the run's.
struct Silent : stage::Events {
  void emit(const Json&) override {}
};

Json by_name(const std::vector<std::string>& names, const std::vector<double>& values) {
  Json out = Json::object();
  for (std::size_t i = 0; i < names.size(); ++i) out[names[i]] = values[i];
  return out;
}

}  // namespace

DynamicDomains::DynamicDomains(DomainSettings settings, std::shared_ptr<data::Mixture> mixture, DomainLosses losses, stage::Events& events)
    : settings_(std::move(settings)), mixture_(std::move(mixture)), losses_(std::move(losses)), events_(events) {
  SLMC_CHECK(settings_.every > 0 && settings_.names.size() == mixture_->shares().size() && settings_.references.size() == settings_.names.size());
}

bool DynamicDomains::begin_step(std::int64_t step, std::int64_t window) {
  if (step % settings_.every != 0 || (!points_.empty() && points_.back().step >= step)) return true;      // a resumed run may have measured already
  const std::vector<double> losses = losses_();
  add({step, window, data::next_weights(settings_.rule, mixture_->shares(), losses, settings_.references), losses});
  std::string text = fmt::format("domains from update {} on:", step + 1);
  for (std::size_t i = 0; i < settings_.names.size(); ++i) {
    text += fmt::format("{} {} {:.4f} (loss {:.3f}, reference {:.3f})", i ? "," : "", settings_.names[i], points_.back().weights[i], losses[i], settings_.references[i]);
  }
  events_.note(text);
  return true;
}

void DynamicDomains::add(Point point) {
  mixture_->change(point.window, point.weights);
  points_.push_back(std::move(point));
}

Json DynamicDomains::state() const {
  Json out = Json::array();
  for (const Point& p : points_) out.push_back({{"step", p.step}, {"window", p.window}, {"weights", p.weights}, {"losses", p.losses}});
  return out;
}

void DynamicDomains::restore(const Json& state) {
  SLMC_CHECK(points_.empty());
  const auto valid = [&](const Point& p) {
    return p.weights.size() == settings_.names.size() && p.window >= mixture_->eras().back().first &&
           std::all_of(p.weights.begin(), p.weights.end(), [](double w) { return w > 0 && std::isfinite(w); });
  };
  try {
    for (const Json& p : state) {
      Point point{p.at("step").get<std::int64_t>(), p.at("window").get<std::int64_t>(), p.at("weights").get<std::vector<double>>(), p.at("losses").get<std::vector<double>>()};
      if (!valid(point)) throw Error(ErrorKind::Model, "the checkpoint must hold the weights of this run's domains, but does not");
      add(std::move(point));
    }
  } catch (const nlohmann::json::exception&) {
    throw Error(ErrorKind::Model, "the checkpoint must hold the weights of this run's domains, but a field of them is missing or of another type");
  }
}

Json DynamicDomains::history() const {
  Json out = Json::array();
  for (const Point& p : points_) out.push_back({{"step", p.step}, {"weights", by_name(settings_.names, p.weights)}, {"losses", by_name(settings_.names, p.losses)}});
  return out;
}

std::vector<double> domain_losses(const ModelRef& model, const data::WindowSource& held_out, std::int64_t windows, const Gates* gates) {
  Silent silent;
  Pass pass;
  pass.gates = gates;
  const std::int64_t seq = held_out.spec().seq;
  std::vector<double> out;
  for (std::size_t d = 0; d < held_out.spec().domains.size(); ++d) {
    const at::Tensor ids = at::empty({windows, seq}, at::kLong);
    for (std::int64_t i = 0; i < windows; ++i) {
      const data::Window window = held_out.of_domain(static_cast<std::int32_t>(d), i);
      std::copy(window.ids.begin(), window.ids.end(), ids.data_ptr<std::int64_t>() + i * seq);
    }
    out.push_back(score_windows(model, ids, silent, pass).mean());
  }
  return out;
}

data::DataSpec matching_domains(data::DataSpec held_out, const data::DataSpec& trained) {
  std::vector<data::DomainSpec> ordered;
  for (const data::DomainSpec& domain : trained.domains) {
    const auto it = std::find_if(held_out.domains.begin(), held_out.domains.end(), [&](const auto& d) { return d.name == domain.name; });
    if (it == held_out.domains.end()) {
      throw Error(ErrorKind::Recipe, fmt::format("the data of 'valid' must have the domain '{}', as the training data has, but lacks it", domain.name));
    }
    ordered.push_back(*it);
  }
  if (held_out.domains.size() != ordered.size()) {
    throw Error(ErrorKind::Recipe, fmt::format("the data of 'valid' must have the {} domains of the training data, but has {}", ordered.size(), held_out.domains.size()));
  }
  held_out.domains = std::move(ordered);
  return held_out;
}

}  // namespace slmc::engine
