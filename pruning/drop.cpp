// The stage `drop`: settings in drop_info.cpp, the search in depth/search.h, the repair in depth/heal.h.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "core/cancel.h"
#include "core/error.h"
#include "engine/stream.h"
#include "ir/cost.h"
#include "ir/plan.h"
#include "ir/write.h"
#include "pruning/depth/heal.h"
#include "pruning/depth/search.h"
#include "pruning/drop_info.h"
#include "pruning/ops.h"
#include "pruning/stored.h"

namespace slmc::pruning {
namespace {

// How much calibration text each part takes from the end and the front of the windows, at most.
constexpr std::int64_t kHeldOut = 16;            // chooses alpha and judges: the last windows, an eighth of all
constexpr std::int64_t kSearch = 8;              // tries candidates: the first windows
constexpr std::int64_t kHeal = 64;               // sums of the repair: the first windows
constexpr std::int64_t kShortlist = 12;          // candidates of a greedy round
constexpr std::int64_t kStride = 4;              // positions that judge, one of so many: the head costs as much as eight blocks

struct Windows {
  at::Tensor fit, held_out;                      // [n, seq]
  at::Tensor front(std::int64_t most) const { return fit.narrow(0, 0, std::min(most, fit.size(0))); }
};

Windows split(const at::Tensor& all) {
  const std::int64_t n = all.size(0);
  if (n == 1) return {all, all};
  const std::int64_t held = std::min(kHeldOut, std::max<std::int64_t>(1, n / 8));
  return {all.narrow(0, 0, n - held), all.narrow(0, n - held, held)};
}

std::vector<std::int64_t> listed(const std::vector<std::int64_t>& list, std::int64_t blocks) {
  const std::set<std::int64_t> unique(list.begin(), list.end());
  if (unique.size() != list.size()) throw Error(ErrorKind::Recipe, "the setting 'list' must name each block once, but repeats one");
  if (*unique.rbegin() >= blocks) {
    throw Error(ErrorKind::Recipe, fmt::format("each block of 'list' must be in 0 .. {}, but one is {}", blocks - 1, *unique.rbegin()));
  }
  return {unique.begin(), unique.end()};
}

void require_choice(const stage::Settings& settings, std::int64_t blocks) {
  const bool list = settings.has("list") && !settings.integers("list").empty();
  if (settings.has("layers") == list) {
    throw Error(ErrorKind::Recipe, list ? "drop must be given 'layers' or 'list', but is given both" : "drop must be given 'layers' or 'list', but is given neither",
                "layers: 3 searches, list: [3, 4] says which");
  }
  const std::int64_t count = list ? static_cast<std::int64_t>(settings.integers("list").size()) : settings.integer("layers");
  if (count >= blocks) throw Error(ErrorKind::Recipe, fmt::format("the number of blocks to remove must be less than {}, what the model has, but is {}", blocks, count));
}

class Drop {
 public:
  explicit Drop(engine::OpContext& context) : context_(context), settings_(context.job.settings), model_(context.model()), arch_(engine::arch_of(model_)) {
    require_choice(settings_, model_.blocks());
    searches_ = settings_.has("layers");
    heals_ = settings_.text("heal") == "refit";
    if (!searches_ && !heals_) return;
    windows_ = split(context.windows("calib"));
    weights_ = engine::PlainWeights(model_, at::kFloat, context.device, engine::Storage::Mapped);
  }

  Json run() {
    const std::vector<std::int64_t> removed = searches_ ? search() : listed(settings_.integers("list"), model_.blocks());
    Json result = {{"removed", removed}};
    ir::Plan plan(model_);
    std::map<std::int64_t, std::int64_t> renumbered;
    for (std::int64_t i = 0; i < model_.blocks(); ++i) {
      if (std::binary_search(removed.begin(), removed.end(), i)) continue;
      renumbered[i] = static_cast<std::int64_t>(plan.take["block"].size());
      plan.take["block"].push_back(i);
    }
    if (heals_) heal_into(plan, removed, renumbered, result);
    weights_ = {};
    ir::write_hf(ir::apply(plan, model_), context_.job.out, ir::common_dtype(model_), context_.writing());
    return result;
  }

 private:
  std::vector<std::int64_t> search() {
    const std::int64_t count = settings_.integer("layers");
    const Judge judge(arch_, weights_, windows_.front(kSearch), kStride);
    const std::vector<Removal> order = settings_.text("search") == "greedy-kl"
                                           ? by_greedy_kl(judge, arch_, weights_, count, kShortlist, context_.events)
                                           : by_block_influence(judge.influence(), count);
    std::vector<std::int64_t> removed;
    for (const Removal& r : order) {
      removed.push_back(r.block);
      context_.events.note(fmt::format("block {} goes, {} {:.4f}", r.block, settings_.text("search") == "greedy-kl" ? "KL" : "influence", r.score));
    }
    std::sort(removed.begin(), removed.end());
    return removed;
  }

  void heal_into(ir::Plan& plan, const std::vector<std::int64_t>& removed, const std::map<std::int64_t, std::int64_t>& renumbered, Json& result) {
    const Judge judge(arch_, weights_, windows_.held_out, 1);
    const Distance before = distance(judge, removed, {});
    const Healed healed = heal(model_, weights_, removed, windows_.front(kHeal), judge, context_.events);
    const Distance after = distance(judge, removed, healed.weights);
    for (const HealedGap& gap : healed.gaps) say(gap);
    for (const auto& [name, w] : healed.weights) {
      const ir::TensorSpec& spec = *model_.find(name);
      plan.set["block." + std::to_string(renumbered.at(spec.block)) + ".ffn.down"].value = stored_data(w.to(at::kCPU), spec);
    }
    result["held_out"] = {{"windows", windows_.held_out.size(0)},
                          {"kl_cut", before.kl}, {"kl_healed", after.kl},
                          {"ppl_whole", std::exp(before.loss_whole)}, {"ppl_cut", std::exp(before.loss)}, {"ppl_healed", std::exp(after.loss)}};
    if (after.kl >= before.kl) context_.events.warning("healing did not bring the predictions closer on held-out text; the model is only cut");
  }

  // Of the cut model, with some weights replaced.
  Distance distance(const Judge& judge, const std::vector<std::int64_t>& removed, const std::map<std::string, at::Tensor>& replaced) {
    std::map<std::string, at::Tensor> originals;
    for (const auto& [name, w] : replaced) originals[name] = std::exchange(weights_.all()[name], w);
    at::Tensor x = judge.start().clone();
    for (std::int64_t i = 0; i < model_.blocks(); ++i) {
      if (!std::binary_search(removed.begin(), removed.end(), i)) engine::run_windows(arch_, weights_, x, i, i + 1);
    }
    const Distance d = judge.of(x);
    for (const auto& [name, w] : originals) weights_.all()[name] = w;
    return d;
  }

  void say(const HealedGap& g) {
    const std::string where = g.gap.first == g.gap.last ? fmt::format("block {}", g.gap.first) : fmt::format("blocks {}-{}", g.gap.first, g.gap.last);
    if (g.gap.before < 0) return context_.events.note(fmt::format("nothing stands before {} that could be healed", where));
    if (g.alpha == 0) return context_.events.note(fmt::format("healing block {} for {} did not help and is left out", g.gap.before, where));
    context_.events.note(fmt::format("block {} does {:.0f} % of what {} did (strength {}), KL {:.4f}", g.gap.before, 100 * g.explained, where, g.alpha, g.kl));
  }

  engine::OpContext& context_;
  const stage::Settings& settings_;
  const ir::Model& model_;
  engine::Arch arch_;
  engine::PlainWeights weights_;
  Windows windows_;
  bool searches_ = false, heals_ = false;
};

}  // namespace

void add_drop(engine::Ops& ops) {
  engine::add_op(ops, drop_info(), [](engine::OpContext& context) { return Drop(context).run(); });
}

}  // namespace slmc::pruning
