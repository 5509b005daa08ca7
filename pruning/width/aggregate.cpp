#include "pruning/width/aggregate.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <array>

#include "core/error.h"

namespace slmc::pruning {
namespace {

// tensors: [structures, entries] each.
at::Tensor structures(std::vector<at::Tensor> tensors, Aggregate how) {
  for (const at::Tensor& t : tensors) {
    if (t.size(1) == tensors.front().size(1)) continue;
    for (at::Tensor& all : tensors) all = all.sum(1, true);
    break;
  }
  return aggregated(tensors, how).sum(1);
}

}  // namespace

Aggregate aggregate_from(std::string_view name) {
  static constexpr std::array<std::string_view, 6> kNames = {"sum", "prod", "max", "mean", "first", "last"};
  const auto it = std::find(kNames.begin(), kNames.end(), name);
  SLMC_CHECK(it != kNames.end());
  return static_cast<Aggregate>(it - kNames.begin());
}

at::Tensor aggregated(const std::vector<at::Tensor>& scores, Aggregate how) {
  SLMC_CHECK(!scores.empty());
  switch (how) {
    case Aggregate::Sum: return at::stack(scores).sum(0);
    case Aggregate::Prod: return at::stack(scores).prod(0);
    case Aggregate::Max: return at::stack(scores).amax(0);
    case Aggregate::Mean: return at::stack(scores).mean(0);
    case Aggregate::First: return scores.front();
    case Aggregate::Last: return scores.back();
  }
  SLMC_CHECK(false);
  return {};
}

at::Tensor aggregated_groups(const std::vector<at::Tensor>& attention, const KvPart& part) {
  SLMC_CHECK(attention.size() == 4);
  const auto folded = [&](const at::Tensor& t) { return t.view({part.groups, part.heads, -1}).sum(1); };
  const auto own = [&](const at::Tensor& t) { return t.view({part.groups, -1}); };
  return structures({folded(attention[0]), own(attention[1]), own(attention[2]), folded(attention[3])}, part.aggregate);
}

at::Tensor aggregated_heads(const std::vector<at::Tensor>& attention, const KvPart& part) {
  SLMC_CHECK(attention.size() == 4);
  const std::int64_t n = part.groups * part.heads;
  const at::Tensor scores = structures({attention[0].view({n, -1}), attention[3].view({n, -1})}, part.aggregate);
  return scores.view({part.groups, part.heads});
}

}  // namespace slmc::pruning
