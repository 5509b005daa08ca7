// The stage `drop`: settings in drop_info.cpp, the searches in depth/search.h and depth/evolve.h, the repair in depth/heal.h.
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

#include "core/cancel.h"
#include "core/error.h"
#include "engine/stream.h"
#include "ir/cost.h"
#include "ir/plan.h"
#include "ir/write.h"
#include "pruning/depth/evolve.h"
#include "pruning/depth/heal.h"
#include "pruning/depth/search.h"
#include "pruning/depth/stream_change.h"
#include "pruning/drop_info.h"
#include "pruning/ops.h"
#include "pruning/resample.h"
#include "pruning/stored.h"

namespace slmc::pruning {
namespace {

// How much calibration text each part takes, at most. The last windows confirm and choose strengths; nothing else sees them.
constexpr std::int64_t kHeldOut = 32;            // a quarter of all windows
constexpr std::int64_t kTurned = 64;             // Block Influence, angles: the first windows
constexpr std::int64_t kHeal = 256;              // sums of the repair: the first windows
constexpr std::int64_t kHealBytes = std::int64_t{384} << 20;   // of one residual stream of them
constexpr std::int64_t kShortlist = 12;          // candidates of a greedy round
constexpr std::int64_t kStride = 4;              // positions that judge, one of so many: the head costs as much as eight blocks

struct Windows {
  at::Tensor fit, held_out;                      // [n, seq]
  at::Tensor front(std::int64_t most) const { return fit.narrow(0, 0, std::min(most, fit.size(0))); }
  // Windows that judge cuts and others to repair them with: at most so many of each, a third judges where there are few.
  std::pair<at::Tensor, at::Tensor> judged_and_repairing(std::int64_t judged, std::int64_t repairing) const {
    const std::int64_t n = fit.size(0);
    if (n == 1) return {fit, fit};
    judged = std::min(judged, std::max<std::int64_t>(1, n / 3));
    return {fit.narrow(0, 0, judged), fit.narrow(0, judged, std::min(repairing, n - judged))};
  }
};

Windows split(const at::Tensor& all) {
  const std::int64_t n = all.size(0);
  if (n == 1) return {all, all};
  const std::int64_t held = std::min(kHeldOut, std::max<std::int64_t>(1, n / 4));
  return {all.narrow(0, 0, n - held), all.narrow(0, n - held, held)};
}

void require_choice(const stage::Settings& settings, std::int64_t blocks, std::int64_t units, const std::string& kind) {
  const bool list = settings.has("list") && !settings.integers("list").empty(), prefix = settings.has("keep_first");
  const int given = settings.has("layers") + list + prefix;
  if (given != 1) {
    throw Error(ErrorKind::Recipe, fmt::format("drop must be given one of 'layers', 'list' and 'keep_first', but is given {}", given == 0 ? "none" : "several"),
                "layers: 3 searches, list: [3, 4] says which go, keep_first: 12 which stay");
  }
  if (!settings.has("layers") && kind == "any") {
    throw Error(ErrorKind::Recipe, fmt::format("the setting 'units' must be layer, attn or mlp beside '{}', but is any", list ? "list" : "keep_first"), "say which parts: attn or mlp");
  }
  if (prefix && settings.integer("keep_first") > blocks) {
    throw Error(ErrorKind::Recipe, fmt::format("the setting 'keep_first' must be at most {}, the blocks of the model, but is {}", blocks, settings.integer("keep_first")));
  }
  if (prefix) return;
  const std::int64_t count = list ? static_cast<std::int64_t>(settings.integers("list").size()) : settings.integer("layers");
  const std::string what = kind == "layer" ? "blocks" : kind == "attn" ? "attention parts" : kind == "mlp" ? "feed-forward parts" : "blocks' worth of parts";
  if (count >= units) {
    throw Error(ErrorKind::Recipe, fmt::format("the number of {} to remove must be less than {}, what the model has, but is {}", what, units, count));
  }
}

class Drop {
 public:
  explicit Drop(engine::OpContext& context)
      : context_(context), settings_(context.job.settings), model_(context.model()), arch_(engine::arch_of(model_)), kind_(settings_.text("units")),
        units_(units_of(model_.sizes(), kind_)), zeros_(kind_ != "layer" && settings_.text("store") == "zeros") {
    require_choice(settings_, model_.blocks(), kind_ == "any" ? model_.blocks() : static_cast<std::int64_t>(units_.size()), kind_);
    searches_ = settings_.has("layers");
    heals_ = settings_.text("heal") != "none";
    if (kind_ != "layer" && !zeros_) require_container();
    if (!searches_ && !heals_) return;
    windows_ = split(context.windows("calib"));
    weights_ = engine::PlainWeights(model_, at::kFloat, context.device, engine::Storage::Mapped);
  }

  Json run() {
    Json result = {{"units", kind_}, {"removed", Json::array()}};
    const std::vector<Unit> removed = searches_ ? search(result) : listed();
    const engine::Arch cut = without(arch_, removed);
    for (const Unit& unit : removed) result["removed"].push_back(kind_ == "any" ? Json(to_string(unit)) : Json(unit.block));
    ir::Plan plan(model_);
    if (zeros_) {
      fill_with_zeros(plan, removed, result);
    } else {
      plan = taking(removed);
    }
    if (heals_ && !removed.empty()) heal_into(plan, cut, result);
    weights_ = {};
    ir::write_hf(ir::apply(plan, model_), context_.job.out, ir::common_dtype(model_), context_.writing());
    return result;
  }

 private:
  // Parts of blocks can be left out only where a container can say that they are not there.
  void require_container() {
    try {
      ir::require_ok(ir::check(taking({units_.front()}), model_), "hf");
    } catch (const Error& e) {                     // its other axes only say the same again
      throw Error(e.kind(), e.message(), "store: zeros keeps the tensors, their last matrix filled with zeros");
    }
  }

  std::vector<Unit> behind(std::int64_t first) const {
    std::vector<Unit> out;
    std::copy_if(units_.begin(), units_.end(), std::back_inserter(out), [&](const Unit& u) { return u.block >= first; });
    return out;
  }

  std::vector<Unit> listed() const {
    if (settings_.has("keep_first")) return behind(settings_.integer("keep_first"));
    const std::vector<std::int64_t> list = settings_.integers("list");
    std::vector<Unit> out;
    for (const std::int64_t block : list) {
      const auto at = std::find_if(units_.begin(), units_.end(), [&](const Unit& u) { return u.block == block; });
      if (at == units_.end()) {
        throw Error(ErrorKind::Recipe, fmt::format("each block of 'list' must be in 0 .. {} and have what is to go, but {} is not", model_.blocks() - 1, block));
      }
      out.push_back(*at);
    }
    std::sort(out.begin(), out.end());
    if (std::adjacent_find(out.begin(), out.end()) != out.end()) {
      throw Error(ErrorKind::Recipe, "the setting 'list' must name each block once, but repeats one");
    }
    return out;
  }

  // Which of units_ go, ascending.
  std::vector<std::int64_t> places(const std::vector<Removal>& removed) const {
    std::vector<std::int64_t> out;
    for (const Removal& r : removed) out.push_back(std::find(units_.begin(), units_.end(), r.unit) - units_.begin());
    std::sort(out.begin(), out.end());
    return out;
  }

  // By scores that are means over windows; decided again on resamples of them when that is asked for.
  std::vector<Removal> by_means(const ByWindow& values, const std::function<std::vector<Removal>(const std::vector<double>&)>& choose, Json& result) {
    const std::vector<Removal> chosen = choose(means(values));
    const std::int64_t times = settings_.integer("stability");
    if (times == 0) return chosen;
    std::map<Unit, std::int64_t> again;
    double agreement = 0;
    for (std::int64_t k = 0; k < times; ++k) {
      const std::vector<std::int64_t> counts = resampled(static_cast<std::int64_t>(values.front().size()), context_.job.seed, k);
      std::vector<double> other;
      for (const std::vector<double>& v : values) other.push_back(resampled_mean(v, counts));
      const std::vector<Removal> removed = choose(other);
      for (const Removal& r : removed) ++again[r.unit];
      agreement += jaccard(places(removed), places(chosen)) / static_cast<double>(times);
    }
    tell_stability(chosen, again, agreement, result);
    return chosen;
  }

  void tell_stability(const std::vector<Removal>& chosen, const std::map<Unit, std::int64_t>& again, double agreement, Json& result) {
    const std::int64_t times = settings_.integer("stability");
    result["stability"] = {{"resamples", times}, {"agreement", agreement}};
    std::vector<std::string> parts;
    for (const Removal& r : chosen) {
      if (!again.contains(r.unit)) parts.push_back(fmt::format("{} in none", to_string(r.unit)));
    }
    for (const auto& [unit, count] : again) {
      result["stability"]["chosen"][to_string(unit)] = count;
      const bool goes = std::any_of(chosen.begin(), chosen.end(), [&](const Removal& c) { return c.unit == unit; });
      parts.push_back(fmt::format("{} in {}{}", to_string(unit), count, goes ? "" : ", though it stays"));
    }
    context_.events.note(fmt::format("decided again on {} resamples of the text, the sets agree by {:.2f} (Jaccard): {}", times, agreement, fmt::join(parts, "; ")));
  }

  std::vector<Removal> by_change(const std::string& how, const Goal& goal, Json& result) {
    const at::Tensor text = windows_.front(kTurned);
    if (how == "block-influence") {
      return by_means(influences(arch_, weights_, text, units_), [&](const std::vector<double>& scores) { return lowest(units_, scores, goal); }, result);
    }
    if (kind_ != "layer") throw Error(ErrorKind::Recipe, fmt::format("the setting 'units' must be layer beside search: angular, but is {}", kind_));
    return by_means(angular_distances(arch_, weights_, text, goal.count(), settings_.text("token") == "last"),
                    [&](const std::vector<double>& distances) { return least_run(distances, goal.count()); }, result);
  }

  std::vector<Removal> by_trials(Trials& trials, const std::string& how, const Goal& goal, Json& result) {
    if (how == "evolve") return evolve(trials, arch_, goal.count(), {.generations = settings_.integer("generations"), .seed = context_.job.seed}, context_.events);
    if (how.starts_with("greedy")) return greedy(trials, goal, kShortlist, context_.events);
    return by_means(costs_alone(trials, context_.events), [&](const std::vector<double>& scores) { return lowest(units_, scores, goal); }, result);
  }

  std::vector<Unit> search(Json& result) {
    const Goal goal(model_, kind_, settings_.integer("layers"));
    const std::string& how = settings_.text("search");
    const bool turned = how == "block-influence" || how == "angular";
    std::vector<Removal> order;
    if (turned) order = by_change(how, goal, result);
    const bool swaps = settings_.boolean("swap");
    if (!turned || swaps) {
      const std::int64_t tries = settings_.integer("tries");
      auto [judged, repairing] = std::pair(windows_.front(tries), at::Tensor());
      if (how == "greedy-healed") std::tie(judged, repairing) = windows_.judged_and_repairing(tries, settings_.integer("repair_tries"));
      const Judge judge(arch_, weights_, judged, kStride);
      Trials trials(judge, arch_, weights_, how.ends_with("ppl") ? Measure::Loss : Measure::Kl, units_, repairing);
      if (!turned) order = by_trials(trials, how, goal, result);
      if (swaps) order = refine(trials, arch_, std::move(order), kShortlist, context_.events);
      context_.events.note(fmt::format("{} cuts tried, {} of them given up early", trials.tried(), trials.given_up()));
    }
    std::vector<Unit> removed;
    for (const Removal& r : order) {
      removed.push_back(r.unit);
      context_.events.note(fmt::format("{} goes, {} {:.4f}", to_string(r.unit), turned ? "it turns the stream by" : how.ends_with("ppl") ? "loss" : "KL", r.score));
    }
    std::sort(removed.begin(), removed.end());
    return removed;
  }

  // Takes the units out: blocks by number, parts by their axis.
  ir::Plan taking(const std::vector<Unit>& removed) const {
    ir::Plan plan(model_);
    std::set<std::int64_t> gone;
    for (const Unit& unit : removed) {
      if (unit.part == Part::Block) gone.insert(unit.block);
      if (unit.part == Part::Attention) plan.take["block." + std::to_string(unit.block) + ".kv"] = {};
      if (unit.part == Part::FeedForward) plan.take["block." + std::to_string(unit.block) + ".ffn"] = {};
    }
    if (gone.empty()) return plan;
    for (std::int64_t i = 0; i < model_.blocks(); ++i) {
      if (!gone.contains(i)) plan.take["block"].push_back(i);
    }
    return plan;
  }

  // What a part adds is its last linear map's: of zeros, it adds nothing.
  void fill_with_zeros(ir::Plan& plan, const std::vector<Unit>& removed, Json& result) {
    std::int64_t idle = 0;
    for (const Unit& unit : removed) {
      idle += parameters_of(model_, unit);
      const std::string name = "block." + std::to_string(unit.block) + (unit.part == Part::Attention ? ".attn.o" : ".ffn.down");
      for (const std::string& tensor : {name, name + ".bias"}) {
        if (const ir::TensorSpec* spec = model_.find(tensor)) plan.set[tensor].value = stored_data(at::zeros(spec->shape, at::kFloat), *spec);
      }
    }
    const std::int64_t all = ir::cost(model_).parameters;
    result["parameters"] = {{"stored", all}, {"without_idle_parts", all - idle}};
    context_.events.note(fmt::format("{} of {} parameters do nothing any more; they are still stored", idle, all));
  }

  void heal_into(ir::Plan& plan, const engine::Arch& cut, Json& result) {
    static const std::map<std::string, Repair> kRepairs = {{"refit", Repair::Refit}, {"linear", Repair::Linear}, {"merge", Repair::Merge}};
    const Judge judge(arch_, weights_, windows_.held_out, kStride);
    const std::int64_t bytes = windows_.fit.size(1) * arch_.sizes.hidden * static_cast<std::int64_t>(sizeof(float));
    const at::Tensor text = windows_.front(std::clamp(kHealBytes / bytes, std::int64_t{8}, kHeal));
    const Distance before = distance(judge, cut, {});
    const Healed healed = heal(model_, weights_, cut, kRepairs.at(settings_.text("heal")), text, judge, context_.events);
    const Distance after = distance(judge, cut, healed.weights);
    for (const HealedGap& gap : healed.gaps) say(gap);
    if (healed.followers) context_.events.note(fmt::format("{} parts behind the gaps were refitted too, KL {:.4f}", healed.followers, after.kl));
    result["held_out"] = {{"windows", windows_.held_out.size(0)},
                          {"kl_cut", before.kl}, {"kl_healed", after.kl},
                          {"ppl_whole", std::exp(before.loss_whole)}, {"ppl_cut", std::exp(before.loss)}, {"ppl_healed", std::exp(after.loss)}};
    if (!(after.kl < before.kl)) return context_.events.warning("healing did not bring the predictions closer on held-out text; the model is only cut");
    const std::vector<std::int64_t>* kept = plan.take.contains("block") ? &plan.take.at("block") : nullptr;
    for (const auto& [name, w] : healed.weights) {
      const ir::TensorSpec& spec = *model_.find(name);
      const std::int64_t now = kept ? std::find(kept->begin(), kept->end(), spec.block) - kept->begin() : spec.block;
      const std::string rest = name.substr(("block." + std::to_string(spec.block)).size());
      plan.set["block." + std::to_string(now) + rest].value = stored_data(w.to(at::kCPU), spec);
    }
  }

  // Of the cut model, with some weights replaced.
  Distance distance(const Judge& judge, const engine::Arch& cut, const std::map<std::string, at::Tensor>& replaced) const {
    engine::PlainWeights weights = weights_;
    for (const auto& [name, w] : replaced) weights.all()[name] = w;
    at::Tensor x = judge.start().clone();
    engine::run_windows(cut, weights, x, 0, model_.blocks());
    return judge.of(x);
  }

  void say(const HealedGap& g) {
    const Unit &first = g.gap.removed.front(), &last = g.gap.removed.back();
    const bool blocks = g.gap.whole_blocks();
    const std::string where = !blocks && first == last    ? to_string(first)
                              : first.block == last.block ? fmt::format("block {}", first.block)
                                                          : fmt::format("blocks {}-{}", first.block, last.block);
    if (g.gap.before.block < 0) return context_.events.note(fmt::format("nothing stands before {} that could be healed", where));
    if (g.alpha == 0) return context_.events.note(fmt::format("healing {} for {} did not help and is left out", to_string(g.gap.before), where));
    const std::string share = g.explained > 0 ? fmt::format("does {:.0f} % of what {} did", 100 * g.explained, where) : fmt::format("is merged with {}", where);
    context_.events.note(fmt::format("{} {} (strength {}), KL {:.4f}", to_string(g.gap.before), share, g.alpha, g.kl));
  }

  engine::OpContext& context_;
  const stage::Settings& settings_;
  const ir::Model& model_;
  engine::Arch arch_;
  std::string kind_;
  std::vector<Unit> units_;
  engine::PlainWeights weights_;
  Windows windows_;
  bool zeros_ = false, searches_ = false, heals_ = false;
};

}  // namespace

void add_drop(engine::Ops& ops) {
  engine::add_op(ops, drop_info(), [](engine::OpContext& context) { return Drop(context).run(); });
}

}  // namespace slmc::pruning
