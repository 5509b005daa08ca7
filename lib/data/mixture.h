#pragma once
// Whose turn it is: domains share windows by weights that may change from some window on. A pure function of the history of weights, so
// that a run that is resumed with the same history reads the same windows.
//
//   mass of a domain at window i    the sum of its shares over the windows before i
//   k-th window of a domain         due when its mass reaches k + 1/2, as far as today's shares tell
//   window i                        the domain that is due first (of equals, the first domain)
// A change to the same shares changes nothing (two that are due at the same time aside); each domain's own windows are used in order, each once.
#include <cstdint>
#include <utility>
#include <vector>

namespace slmc::data {

class Mixture {
 public:
  // Weights > 0 of the domains; they are divided by their sum.
  explicit Mixture(const std::vector<double>& weights);
  // These weights from window `first` on. A change at the last change's window replaces it; an earlier one is SLMC_CHECK.
  void change(std::int64_t first, const std::vector<double>& weights);

  // Whose turn window `index` is, and how many windows that domain has had before.
  std::pair<std::int32_t, std::int64_t> turn(std::int64_t index) const;
  std::vector<std::int64_t> turns_before(std::int64_t index) const;      // how many windows each domain has before `index`

  struct Era {
    std::int64_t first = 0;               // its first window
    std::vector<double> shares;           // sum 1
    std::vector<double> mass;             // before `first`
    std::vector<std::int64_t> had;        // before `first`
  };
  const std::vector<Era>& eras() const { return eras_; }
  const std::vector<double>& shares() const { return eras_.back().shares; }

 private:
  const Era& era_of(std::int64_t index) const;
  std::vector<Era> eras_;
};

}  // namespace slmc::data
