#pragma once
// Several processes that train one model together: each works on its own windows of a step, and sums are taken over all of them.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

namespace slmc::engine {

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;                                    // 0 .. size() - 1; rank 0 writes checkpoints and reports
  virtual int size() const = 0;
  virtual void sum(std::span<double> values) = 0;                  // in place; the same bits on every rank
  virtual void sum(const std::vector<at::Tensor>& gradients) = 0;  // in place
};

// One process alone.
class Single final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void sum(std::span<double>) override {}
  void sum(const std::vector<at::Tensor>&) override {}
};

}  // namespace slmc::engine
