#include "pruning/width/merge.h"

#include <ATen/core/Tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <numeric>

#include "core/error.h"
#include "engine/tensors.h"
#include "pruning/stored.h"

namespace slmc::pruning {
namespace {

// Rows [groups * n * rows, ...] -> means over each n neighbouring groups, [groups * rows, ...].
at::Tensor mean_groups(const at::Tensor& t, std::int64_t groups, std::int64_t n) {
  std::vector<std::int64_t> shape = t.sizes().vec(), split = {groups, n, shape[0] / (groups * n)};
  split.insert(split.end(), shape.begin() + 1, shape.end());
  shape[0] /= n;
  return t.to(at::kDouble).view(split).mean(1).reshape(shape).to(at::kFloat);
}

std::vector<std::int64_t> heads_of(const ir::Plan& plan, const std::string& axis, std::int64_t q) {
  const auto it = plan.take.find(axis);
  if (it != plan.take.end()) return it->second;
  std::vector<std::int64_t> all(static_cast<std::size_t>(q));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

}  // namespace

void require_mergeable(const ir::Sizes& sizes, std::int64_t groups) {
  for (const ir::BlockSizes& block : sizes.blocks) {
    if (block.kv <= groups || block.kv % groups == 0) continue;
    std::vector<std::int64_t> divisors;
    for (std::int64_t n = 1; n < block.kv; ++n) {
      if (block.kv % n == 0) divisors.push_back(n);
    }
    throw Error(ErrorKind::Recipe, fmt::format("the number of key/value groups to merge {} into must divide it, but is {}", block.kv, groups),
                fmt::format("possible: {}", fmt::join(divisors, ", ")));
  }
}

void merge_groups(ir::Plan& plan, const ir::Model& model, std::int64_t groups) {
  require_mergeable(model.sizes(), groups);
  const ir::Model cut = ir::apply(plan, model);         // its tensors as they are before groups are merged
  for (std::int64_t i = 0; i < model.blocks(); ++i) {
    const ir::BlockSizes& sizes = model.sizes().blocks[static_cast<std::size_t>(i)];
    if (sizes.kv <= groups) continue;
    const std::int64_t n = sizes.kv / groups;
    const std::string block = "block." + std::to_string(i);
    SLMC_CHECK(!plan.take.contains(block + ".kv"));
    std::vector<std::int64_t>& kept = plan.take[block + ".kv"];
    for (std::int64_t g = 0; g < sizes.kv; g += n) {
      kept.push_back(g);
      const std::string axis = fmt::format("{}.kv.{}.q", block, g);
      const std::vector<std::int64_t> own = heads_of(plan, axis, sizes.q);
      std::vector<std::int64_t>& heads = plan.take[axis] = own;
      for (std::int64_t k = 1; k < n; ++k) {
        heads.insert(heads.end(), own.begin(), own.end());
        plan.take.erase(fmt::format("{}.kv.{}.q", block, g + k));
      }
    }
    for (const char* part : {".attn.q", ".attn.q.bias", ".attn.o", ".attn.k", ".attn.k.bias", ".attn.v", ".attn.v.bias"}) {
      const std::string name = block + part;
      if (!cut.has(name)) continue;
      const bool mean = name.find(".attn.k") != std::string::npos || name.find(".attn.v") != std::string::npos;
      plan.set[name].value = mean ? stored_data(mean_groups(engine::to_tensor(cut.read(name), at::kFloat), groups, n), *cut.find(name)) : cut.read(name);
    }
  }
}

}  // namespace slmc::pruning
