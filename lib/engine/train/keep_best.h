#pragma once
// Keeping the best: every so many updates a loss on held-out text is measured, and the run ends with the weights that had the lowest, its
// start included. With patience it ends early. LLM-Pruner's recovery is best after a third of its run and slowly worse behind that.
#include <functional>
#include <string>
#include <vector>

#include "engine/train/adamw.h"
#include "engine/train/trainer.h"

namespace slmc::engine {

struct KeepBestSettings {
  std::int64_t every = 50;                 // updates
  std::int64_t patience = 0;               // measurements without a better one, after which the run ends; 0 = never
};

class KeepBest : public Companion {
 public:
  // `parameters` are what is trained; their values are set in end(). loss: nats per token now.
  KeepBest(KeepBestSettings settings, std::vector<Parameter> parameters, std::function<double()> loss, stage::Events& events);
  bool begin_step(std::int64_t step, std::int64_t window) override;
  void end(std::int64_t step) override;
  Json state() const override;             // [{"step", "loss"}]
  void restore(const Json& state) override;      // Error(Model) when it is not of such a run
  std::vector<Parameter> tensors() const override { return best_; }
  std::int64_t best_step() const;
  double best_loss() const;

 private:
  struct Point {
    std::int64_t step = 0;
    double loss = 0;
  };
  void measure(std::int64_t step);
  std::size_t best() const;                // index of the first of the lowest

  KeepBestSettings settings_;
  std::vector<Parameter> parameters_, best_;
  std::function<double()> loss_;
  stage::Events& events_;
  std::vector<Point> points_;
};

}  // namespace slmc::engine
