#include "pruning/width/criterion.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "pruning/width/magnitude.h"
#include "pruning/width/random.h"
#include "pruning/width/wanda.h"

namespace slmc::pruning {

const std::vector<Criterion>& criteria() {
  static const std::vector<Criterion> all = {
      {.name = "random", .ffn = random_channels, .kv = random_groups, .heads = random_heads, .hidden = random_hidden},
      {.name = "magnitude", .ffn = magnitude_of_channels, .kv = magnitude_of_groups, .heads = magnitude_of_heads},
      {.name = "wanda", .wants = {.mean_square = true}, .ffn = wanda_of_channels, .kv = wanda_of_groups, .heads = wanda_of_heads},
  };
  return all;
}

const Criterion& criterion(std::string_view name) {
  const std::vector<Criterion>& all = criteria();
  const auto it = std::find_if(all.begin(), all.end(), [&](const Criterion& c) { return c.name == name; });
  SLMC_CHECK(it != all.end());
  return *it;
}

std::vector<std::int64_t> keep_best(const at::Tensor& scores, std::int64_t count) {
  const at::Tensor s = scores.to(at::kCPU, at::kDouble).contiguous();
  const double* value = s.const_data_ptr<double>();
  SLMC_CHECK(count <= s.numel() && std::none_of(value, value + s.numel(), [](double x) { return std::isnan(x); }));
  std::vector<std::int64_t> order(static_cast<std::size_t>(s.numel()));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) { return value[a] > value[b]; });
  order.resize(static_cast<std::size_t>(count));
  std::sort(order.begin(), order.end());
  return order;
}

at::Tensor row_norms(const at::Tensor& w) { return w.to(at::kDouble).norm(2, 1); }

at::Tensor run_norms(const at::Tensor& w, std::int64_t runs) { return w.to(at::kDouble).contiguous().view({runs, -1}).norm(2, 1); }

}  // namespace slmc::pruning
