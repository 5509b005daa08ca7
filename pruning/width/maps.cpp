#include "pruning/width/maps.h"

#include <array>
#include <numeric>

#include "core/error.h"
#include "engine/tensors.h"

namespace slmc::pruning {
namespace {

constexpr std::array<const char*, 7> kMaps = {"attn.q", "attn.k", "attn.v", "attn.o", "ffn.gate", "ffn.up", "ffn.down"};

bool reads_stream(const ir::TensorSpec& spec) { return spec.dims[1].carries("hidden"); }

// With only those entries of `take` that `wanted` accepts, and nothing else.
template <typename F>
ir::Plan only(const ir::Model& model, const ir::Plan& plan, const F& wanted) {
  ir::Plan out(model);
  for (const auto& [axis, kept] : plan.take) {
    if (wanted(axis)) out.take[axis] = kept;
  }
  return out;
}

std::vector<std::int64_t> kept_of(const ir::Plan& plan, const std::string& axis, std::int64_t size) {
  const auto it = plan.take.find(axis);
  if (it != plan.take.end()) return it->second;
  std::vector<std::int64_t> all(static_cast<std::size_t>(size));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

}  // namespace

std::string input_site(const std::string& map) {
  const auto named = [&](const char* end) { return map.ends_with(end); };
  const std::string block = map.substr(0, map.find('.', 6));
  if (named(".attn.k") || named(".attn.v")) return block + ".attn.q.in";
  return named(".ffn.gate") ? block + ".ffn.up.in" : map + ".in";
}

std::vector<std::string> changed_maps(const ir::Model& model, const ir::Plan& plan, std::int64_t block) {
  std::vector<std::string> out;
  const bool hidden = plan.take.contains("hidden");
  for (const char* part : kMaps) {
    const std::string map = "block." + std::to_string(block) + "." + part;
    if (!model.has(map)) continue;
    const auto all = static_cast<std::size_t>(model.find(map)->shape[1]);
    const bool merged = map.ends_with(".attn.o") && plan.set.contains("block." + std::to_string(block) + ".attn.k");
    if (hidden || merged || kept_inputs(model, plan, map).size() < all) out.push_back(map);
  }
  return out;
}

std::vector<std::int64_t> kept_inputs(const ir::Model& model, const ir::Plan& plan, const std::string& map) {
  const ir::TensorSpec* spec = model.find(map);
  SLMC_CHECK(spec != nullptr && spec->dims.size() == 2);
  if (reads_stream(*spec)) return kept_of(plan, "hidden", model.sizes().hidden);
  const ir::BlockSizes& sizes = model.sizes().blocks[static_cast<std::size_t>(spec->block)];
  const std::string block = "block." + std::to_string(spec->block);
  if (spec->dims[1].carries("ffn")) return kept_of(plan, block + ".ffn", sizes.ffn);
  std::vector<std::int64_t> out;
  for (const std::int64_t g : kept_of(plan, block + ".kv", sizes.kv)) {
    for (const std::int64_t q : kept_of(plan, block + ".kv." + std::to_string(g) + ".q", sizes.q)) {
      for (std::int64_t j = 0; j < sizes.vd; ++j) out.push_back((g * sizes.q + q) * sizes.vd + j);
    }
  }
  return out;
}

Targets::Targets(const ir::Model& model, const ir::Plan& plan)
    : hidden_(ir::apply(only(model, plan, [](const std::string& axis) { return axis == "hidden"; }), model)),
      others_(ir::apply(only(model, plan, [](const std::string& axis) { return axis != "hidden"; }), model)) {}

Affine Targets::of(const std::string& map) const {
  const ir::Model& from = reads_stream(*hidden_.find(map)) ? others_ : hidden_;
  const std::string bias = map + ".bias";
  return {engine::to_tensor(from.read(map), at::kFloat), from.has(bias) ? engine::to_tensor(from.read(bias), at::kFloat) : at::Tensor()};
}

std::vector<std::int64_t> others(const std::vector<std::int64_t>& kept, std::int64_t n) {
  std::vector<bool> keep(static_cast<std::size_t>(n), false);
  for (const std::int64_t k : kept) keep[static_cast<std::size_t>(k)] = true;
  std::vector<std::int64_t> out;
  for (std::int64_t i = 0; i < n; ++i) {
    if (!keep[static_cast<std::size_t>(i)]) out.push_back(i);
  }
  return out;
}

}  // namespace slmc::pruning
