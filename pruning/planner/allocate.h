#pragma once
// The multiple-choice knapsack: one option for each block, the least sum of losses whose costs stay within a bound. Exact, by dynamic
// programming over the costs that can be reached: a state that another one beats in cost and loss is dropped [Nemhauser & Ullmann 1969,
// for multiple choice Dyer, Kayal & Walker 1984]. States stay as few as sums of costs are different, since widths come in equal steps.
#include <cstdint>
#include <optional>
#include <vector>

namespace slmc::pruning {

struct Option {
  std::int64_t size = 0;           // a width
  std::int64_t cost = 0;           // >= 0
  double loss = 0;                 // finite
};

// The options' numbers by block; nothing when the cheapest of all cost too much. Of equal losses the cheaper, then the one that takes earlier
// options in the last block that differs. Error(Recipe) beyond two million states.
std::optional<std::vector<std::size_t>> allocate(const std::vector<std::vector<Option>>& blocks, std::int64_t most);

}  // namespace slmc::pruning
