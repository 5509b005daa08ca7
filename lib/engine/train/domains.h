#pragma once
// Dynamic batch loading [Xia et al. 2023, arXiv:2310.06694, algorithm 1]: every so many updates the model is measured on held-out text of each domain, and
// domains that are behind their reference get more of the windows to come.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "data/domain_weights.h"
#include "data/mixture.h"
#include "data/source.h"
#include "engine/decoder.h"
#include "engine/train/trainer.h"

namespace slmc::engine {

struct DomainSettings {
  data::WeightRule rule;
  std::int64_t every = 50;                 // updates
  std::vector<std::string> names;          // of the domains
  std::vector<double> references;          // loss of each domain, nats per token
};

// Losses of each domain now, nats per token.
using DomainLosses = std::function<std::vector<double>()>;

class DynamicDomains : public Companion {
 public:
  // Starts with the mixture's weights and changes it.
  DynamicDomains(DomainSettings settings, std::shared_ptr<data::Mixture> mixture, DomainLosses losses, stage::Events& events);
  // Before updates 0, every, 2 every ...: measures, and sets the weights of the windows from `window` on.
  bool begin_step(std::int64_t step, std::int64_t window) override;
  Json state() const override;             // [{"step", "window", "weights", "losses"}], each vector [domains]
  void restore(const Json& state) override;      // Error(Model) when it is not of such a run
  // [{"step", "weights": {NAME: w}, "losses": {NAME: l}}]
  Json history() const;

 private:
  struct Point {
    std::int64_t step = 0, window = 0;
    std::vector<double> weights, losses;
  };
  void add(Point point);

  DomainSettings settings_;
  std::shared_ptr<data::Mixture> mixture_;
  DomainLosses losses_;
  stage::Events& events_;
  std::vector<Point> points_;
};

// Mean loss of `model` under `gates` (may be null) on the first `windows` windows of each domain.
std::vector<double> domain_losses(const ModelRef& model, const data::WindowSource& held_out, std::int64_t windows, const Gates* gates);

// `held_out` must have the domains of `trained`, in any order; its order of domains follows `trained` in the result. Error(Recipe) naming the first that is
// missing or too many.
data::DataSpec matching_domains(data::DataSpec held_out, const data::DataSpec& trained);

}  // namespace slmc::engine
