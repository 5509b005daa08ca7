#pragma once
// Seeded plans as a user could write them for one container, some of them illegal; and whether what a refusal names as nearest is legal. No torch.
#include <charconv>
#include <numeric>
#include <optional>
#include <set>

#include "ir/vocabulary.h"
#include "tests/support/random_plans.h"

namespace slmc::testing {

// A cut of the vocabulary must leave whole merges: as many tokens as the plan wanted, or the fewest that are possible.
inline void legalise_vocabulary(ir::Plan& plan, const ir::Model& model) {
  const auto vocab = plan.take.find("vocab");
  if (vocab == plan.take.end() || !model.tokenizer()) return;
  const auto needed = static_cast<std::int64_t>(ir::closed_vocabulary(model, {}, model.sizes().vocab).size());
  vocab->second = ir::first_tokens(model, std::clamp(static_cast<std::int64_t>(vocab->second.size()), needed, model.sizes().vocab));
}

// Most plans leave all blocks alike, as containers want it; every eighth is anything. Three of four leave head widths alone, and half the hidden
// width, which few numbers of heads divide, so that most of those fit.
inline ir::Plan export_plan(const ir::Model& model, std::uint64_t seed) {
  PlanMaker maker(model, seed);
  ir::Plan plan = seed % 8 == 7 ? maker.combined() : maker.uniform();
  if (seed % 4 != 3) {
    std::erase_if(plan.take, [&](const auto& t) {
      const bool head = t.first.ends_with(".freq") || t.first.ends_with(".pass") || t.first.ends_with(".vd");
      return head || (t.first == "hidden" && seed % 4 != 2);
    });
  }
  legalise_vocabulary(plan, model);
  return plan;
}

inline std::vector<std::int64_t> first_of(std::int64_t n) {
  std::vector<std::int64_t> all(static_cast<std::size_t>(n));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

// The plan with this axis at this size, in every block when it lies in blocks.
inline ir::Plan with_size(const ir::Plan& plan, const ir::Model& model, const std::string& axis, std::int64_t size) {
  ir::Plan out = plan;
  if (!axis.starts_with("block.")) {
    if (size <= model.sizes().of(axis)) out.take[axis] = first_of(size);
    if (axis == "vocab") legalise_vocabulary(out, model);
    return out;
  }
  const std::string inner = axis.substr(axis.find('.', 6) + 1);
  const std::string kind = inner.starts_with("kv.") ? "q" : inner;
  for (std::int64_t b = 0; b < model.blocks(); ++b) {
    if (size > model.sizes().of(kind, b)) continue;
    const std::string block = "block." + std::to_string(b) + ".";
    if (kind != "q") {
      out.take[block + kind] = first_of(size);
      continue;
    }
    for (std::int64_t g = 0; g < model.sizes().of("kv", b); ++g) out.take[block + "kv." + std::to_string(g) + ".q"] = first_of(size);
  }
  return out;
}

// Axes without block numbers, of what a container refuses.
inline std::set<std::string> refused_axes(const ir::Verdict& verdict, const std::string& container) {
  std::set<std::string> out;
  const auto add = [&](const std::vector<ir::Violation>& all) {
    for (const ir::Violation& v : all) out.insert(v.axis_or_tensor.starts_with("block.") ? v.axis_or_tensor.substr(v.axis_or_tensor.find('.', 6) + 1) : v.axis_or_tensor);
  };
  add(verdict.violations);
  const auto it = verdict.cannot.find(container);
  if (it != verdict.cannot.end()) add(it->second);
  return out;
}

// Whether the axis is no longer complained about once it has the size that `nearest` names; nothing where that is no size.
inline std::optional<bool> legal(const ir::Plan& plan, const ir::Model& model, const std::string& container, const ir::Violation& v) {
  std::int64_t size = 0;
  const auto [end, error] = std::from_chars(v.nearest.data(), v.nearest.data() + v.nearest.size(), size);
  if (v.nearest.empty() || error != std::errc() || end != v.nearest.data() + v.nearest.size()) return std::nullopt;
  const std::set<std::string> now = refused_axes(ir::check(with_size(plan, model, v.axis_or_tensor, size), model), container);
  return !now.contains(v.axis_or_tensor.starts_with("block.") ? v.axis_or_tensor.substr(v.axis_or_tensor.find('.', 6) + 1) : v.axis_or_tensor);
}

}  // namespace slmc::testing
