#include "pruning/width/narrow.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "pruning/width/gradients.h"
#include "pruning/width/measure.h"
#include "pruning/width/merge.h"
#include "pruning/width/norm_drift.h"
#include "pruning/width/repair.h"
#include "pruning/width/score.h"
#include "pruning/width/stability.h"

namespace slmc::pruning {
namespace {

constexpr std::array<const char*, 4> kRepairs = {"none", "bias", "dense", "sequential"};      // in the order of Repair

double rounded(double x) { return x == 0 || !std::isfinite(x) ? x : std::stod(fmt::format("{:.4g}", x)); }

Json scores_json(const at::Tensor& scores) {
  Json out = Json::array();
  const at::Tensor flat = scores.to(at::kDouble).contiguous().flatten();
  for (std::int64_t i = 0; i < flat.numel(); ++i) out.push_back(rounded(flat.const_data_ptr<double>()[i]));
  return out;
}

Json why(const NarrowSettings& settings, const Scores& scores, const Narrowed& narrowed) {
  Json out = {{"stage", "prune"}, {"criterion", settings.criterion}, {"refit", kRepairs[static_cast<std::size_t>(settings.repair)]}};
  if (settings.merge) out["merged_groups"] = *settings.merge;
  const auto add = [&](const std::string& axis, const at::Tensor& of) {
    if (of.defined()) out["scores"][axis] = scores_json(of);
  };
  add("hidden", scores.hidden);
  for (std::size_t i = 0; i < scores.blocks.size(); ++i) {
    const std::string block = "block." + std::to_string(i);
    add(block + ".ffn", scores.blocks[i].ffn), add(block + ".kv", scores.blocks[i].kv), add(block + ".kv.q", scores.blocks[i].heads);
  }
  for (const RefittedMap& m : narrowed.maps) {
    out["errors"][m.name] = {{"cut", rounded(m.cut)}, {"refitted", rounded(m.refitted)}, {"ridge", m.ridge}};
  }
  for (const RefittedMap& m : narrowed.sequence) {
    out["errors_in_sequence"][m.name] = {{"before", rounded(m.cut)}, {"refitted", rounded(m.refitted)}, {"ridge", m.ridge}};
  }
  return out;
}

bool holds_bias(const ir::Model& model, const Widths& widths) {
  for (std::int64_t i = 0; i < model.blocks(); ++i) {
    const ir::BlockSizes& sizes = model.sizes().blocks[static_cast<std::size_t>(i)];
    const std::string block = "block." + std::to_string(i);
    if (narrows_attention(sizes, widths) && !model.has(block + ".attn.o.bias")) return false;
    if (narrows(sizes.ffn, widths.ffn_in(i)) && !model.has(block + ".ffn.down.bias")) return false;
  }
  return true;
}

bool any_bias(const ir::Model& model) {
  return std::any_of(model.tensors().begin(), model.tensors().end(), [](const ir::TensorSpec& t) { return t.block >= 0 && t.dims.size() == 1 && t.name.ends_with(".bias"); });
}

Json to_json(const std::map<std::string, Agreement>& agreements) {
  Json out = Json::object();
  for (const auto& [axis, a] : agreements) out[axis] = {{"kept", rounded(a.kept)}, {"removed", rounded(a.removed)}};
  return out;
}

void set(ir::Plan& plan, std::map<std::string, io::TensorData> values) {
  for (auto& [name, value] : values) plan.set[name] = {.value = std::move(value)};
}

}  // namespace

Repair repair_from(const std::string& name) {
  const auto it = std::find(kRepairs.begin(), kRepairs.end(), name);
  SLMC_CHECK(it != kRepairs.end());
  return static_cast<Repair>(it - kRepairs.begin());
}

bool needs_text(const NarrowSettings& settings) {
  return settings.repair != Repair::None || settings.widths.hidden || criterion(settings.criterion).wants.text();
}

void require_possible(const ir::Model& model, const NarrowSettings& settings) {
  require_formulas(criterion(settings.criterion), model.sizes(), settings.widths);
  if (settings.merge) require_mergeable(model.sizes(), *settings.merge);
  if (settings.repair != Repair::Bias || holds_bias(model, settings.widths)) return;
  throw Error(ErrorKind::Recipe, "maps that lose inputs must have a bias that can take the mean of what is removed, but in this " + model.family() +
              " model they have none", "refit: dense gives it to the weights of what is kept");
}

Narrowed narrow(const ir::Model& model, const at::Tensor& windows, const NarrowSettings& settings, stage::Events& events) {
  require_possible(model, settings);
  const Criterion& chosen = criterion(settings.criterion);
  const bool hidden = narrows(model.sizes().hidden, settings.widths.hidden), refits = settings.repair != Repair::None;
  const Asked asked{.wants = chosen.wants, .grams = refits, .means = refits && any_bias(model), .norms = hidden,
                    .windows = settings.stability > 0};
  const Measured measured = measure(model, windows, settings.widths, asked, settings.device, settings.cache, events);
  GradientScores gradients;
  if (chosen.wants.gradient != GradientScore::None) {
    gradients = gradient_scores(model, split(windows).fit, chosen.wants.gradient, hidden, settings.seed, settings.device, events);
  }
  const Scores scores = scores_of(model, measured.fit, gradients, chosen, settings.aggregate, settings.widths, settings.seed);
  Narrowed out{.plan = decide(model, scores, settings.widths)};
  std::map<std::string, Agreement> agreements;
  if (settings.stability > 0) {
    agreements = stability(model, measured, settings, out.plan);
    out.stability = std::make_shared<const Json>(summary(agreements, settings.stability));
  }
  if (hidden) set(out.plan, corrected_norms(model, out.plan, measured.fit));
  if (refits) {
    Repaired repaired = repair_from_statistics(model, out.plan, measured, settings.repair == Repair::Bias, events);
    set(out.plan, std::move(repaired.values));
    out.maps = std::move(repaired.maps);
  }
  if (settings.merge) merge_groups(out.plan, model, *settings.merge);
  if (settings.repair == Repair::Sequential) {
    Repaired repaired = repair_in_sequence(model, out.plan, windows, settings.device, events);
    set(out.plan, std::move(repaired.values));
    out.sequence = std::move(repaired.maps);
  }
  Json reasons = why(settings, scores, out);
  if (!agreements.empty()) reasons["stability"] = to_json(agreements);
  out.plan.why = std::make_shared<const Json>(std::move(reasons));
  return out;
}

}  // namespace slmc::pruning
