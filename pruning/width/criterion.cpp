#include "pruning/width/criterion.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "pruning/width/flap.h"
#include "pruning/width/magnitude.h"
#include "pruning/width/maw.h"
#include "pruning/width/minitron.h"
#include "pruning/width/norms.h"
#include "pruning/width/obs.h"
#include "pruning/width/random.h"
#include "pruning/width/taylor.h"
#include "pruning/width/wanda.h"

namespace slmc::pruning {
namespace {

Criterion llm_pruner(std::string_view name, GradientScore gradient, at::Tensor (*hidden)(const HiddenPart&)) {
  return {.name = name, .wants = {.gradient = gradient}, .ffn = taylor_of_channels, .kv = taylor_of_groups, .heads = taylor_of_heads,
          .hidden = hidden};
}

}  // namespace

const std::vector<Criterion>& criteria() {
  static const std::vector<Criterion> all = {
      {.name = "random", .ffn = random_channels, .kv = random_groups, .heads = random_heads, .hidden = random_hidden},
      {.name = "magnitude", .ffn = magnitude_of_channels, .kv = magnitude_of_groups, .heads = magnitude_of_heads},
      {.name = "l1", .ffn = l1_of_channels, .kv = l1_of_groups, .heads = l1_of_heads},
      {.name = "l2", .ffn = l2_of_channels, .kv = l2_of_groups, .heads = l2_of_heads},
      {.name = "maw", .ffn = maw_of_channels},
      {.name = "minitron", .wants = {.window_mean_abs = true}, .ffn = minitron_of_channels, .kv = minitron_of_groups,
       .heads = minitron_of_heads, .hidden = minitron_of_hidden},
      {.name = "wanda", .wants = {.mean_square = true}, .ffn = wanda_of_channels, .kv = wanda_of_groups, .heads = wanda_of_heads},
      {.name = "flap", .wants = {.mean_square = true, .mean = true}, .ffn = flap_of_channels, .kv = flap_of_groups, .heads = flap_of_heads},
      {.name = "obs", .wants = {.gram = true}, .ffn = obs_of_channels, .kv = obs_of_groups, .heads = obs_of_heads},
      llm_pruner("taylor-vector", GradientScore::Vector, taylor_of_hidden),
      llm_pruner("taylor-element1", GradientScore::Element1, taylor_of_hidden),
      llm_pruner("taylor-element2", GradientScore::Element2, nullptr),
      llm_pruner("taylor-mixed", GradientScore::Mixed, nullptr),
      {.name = "taylor-kl", .wants = {.gradient = GradientScore::Kl}, .ffn = taylor_kl_of_channels, .kv = taylor_kl_of_groups,
       .heads = taylor_kl_of_heads, .hidden = taylor_kl_of_hidden},
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
