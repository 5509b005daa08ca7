#include "engine/train/keep_best.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace slmc::engine {

KeepBest::KeepBest(KeepBestSettings settings, std::vector<Parameter> parameters, std::function<double()> loss, stage::Events& events)
    : settings_(settings), parameters_(std::move(parameters)), loss_(std::move(loss)), events_(events) {
  SLMC_CHECK(settings.every > 0 && settings.patience >= 0);
  for (const Parameter& p : parameters_) best_.push_back({"best." + p.name, p.value.detach().clone()});
}

std::size_t KeepBest::best() const {
  const auto lower = [](const Point& a, const Point& b) { return a.loss < b.loss; };
  return static_cast<std::size_t>(std::min_element(points_.begin(), points_.end(), lower) - points_.begin());
}
std::int64_t KeepBest::best_step() const { return points_.at(best()).step; }
double KeepBest::best_loss() const { return points_.at(best()).loss; }

void KeepBest::measure(std::int64_t step) {
  if (!points_.empty() && points_.back().step >= step) return;          // a resumed run may have measured already
  const at::NoGradGuard no_grad;
  points_.push_back({step, loss_()});
  const bool better = best() + 1 == points_.size();
  events_.note(fmt::format("held-out loss {:.4f} after {} updates{}", points_.back().loss, step, better ? "" : fmt::format(", {:.4f} after {} was lower", best_loss(), best_step())));
  for (std::size_t i = 0; better && i < best_.size(); ++i) best_[i].value.copy_(parameters_[i].value);
}

bool KeepBest::begin_step(std::int64_t step, std::int64_t) {
  if (step % settings_.every == 0) measure(step);
  const auto since = static_cast<std::int64_t>(points_.size() - 1 - best());
  if (settings_.patience == 0 || since < settings_.patience) return true;
  events_.note(fmt::format("{} measurements without a better one: the run ends after {} updates", since, step));
  return false;
}

void KeepBest::end(std::int64_t step) {
  measure(step);
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < best_.size(); ++i) at::Tensor(parameters_[i].value).copy_(best_[i].value);
}

Json KeepBest::state() const {
  Json out = Json::array();
  for (const Point& p : points_) out.push_back({{"step", p.step}, {"loss", p.loss}});
  return out;
}

void KeepBest::restore(const Json& state) {
  SLMC_CHECK(points_.empty());
  try {
    for (const Json& p : state) {
      points_.push_back({p.at("step").get<std::int64_t>(), p.at("loss").get<double>()});
      if (!std::isfinite(points_.back().loss)) throw Error(ErrorKind::Model, "the checkpoint must hold finite held-out losses, but does not");
    }
  } catch (const nlohmann::json::exception&) {
    throw Error(ErrorKind::Model, "the checkpoint must hold this run's held-out losses, but a field of them is missing or of another type");
  }
}

}  // namespace slmc::engine
