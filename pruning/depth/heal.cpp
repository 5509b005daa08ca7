#include "pruning/depth/heal.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <array>
#include <set>

#include "core/cancel.h"
#include "core/error.h"
#include "engine/stream.h"
#include "pruning/depth/refit.h"
#include "pruning/stored.h"

namespace slmc::pruning {
namespace {

using Tensors = std::map<std::string, at::Tensor>;

constexpr std::array<double, 3> kAlphas = {1, 0.75, 0.5};
constexpr double kWorthIt = 1e-3;                  // share that a part without a gap behind it must explain to be changed
constexpr int kIdleParts = 4;                      // after so many that did not, the rest up to the next gap is left alone

// The same windows through the whole model and through the cut one. One tensor until the first gap.
struct Streams {
  at::Tensor whole, cut;                           // [n, seq, hidden]
  std::int64_t at = 0, whole_at = 0;               // the block at whose input they are; the whole model's may be further
  void part() {
    if (cut.is_same(whole)) cut = whole.clone();
  }
};

class Healer {
 public:
  Healer(const ir::Model& model, engine::PlainWeights& weights, const engine::Arch& cut, Repair repair, const Judge& judge)
      : model_(model), arch_(engine::arch_of(model)), cut_(cut), weights_(weights), changed_(weights), repair_(repair), judge_(judge) {}

  Healed run(const at::Tensor& windows, stage::Events& events) {
    const at::Tensor x = engine::embed_windows(arch_, weights_, windows, judge_.start().device()), y = judge_.start().clone();
    fit_ = {x, x}, held_ = {y, y};
    const std::vector<Gap> sites = sites_of(arch_.sizes, cut_.sizes, repair_ == Repair::Refit);
    Healed out;
    double kl = judge_.of(finish(y.clone(), 0)).kl;
    int idle = 0;                                  // parts in a row that had next to nothing to take up
    std::int64_t done = 0;
    for (const Gap& site : sites) {
      events.progress("parts repaired", done++, static_cast<std::int64_t>(sites.size()));
      HealedGap healed{.gap = site, .kl = kl};
      if (site.removed.empty()) {
        const bool last = site.after.block == model_.blocks();
        if (idle < kIdleParts || last) follow(healed);
        idle = healed.alpha > 0 ? 0 : idle + 1;
        out.followers += healed.alpha > 0;
        continue;
      }
      if (can_heal(site)) heal_gap(healed);
      kl = healed.kl, idle = 0;
      out.gaps.push_back(std::move(healed));
    }
    for (const std::string& name : names_) out.weights[name] = changed_.tensor(name);
    return out;
  }

 private:
  bool sums_up() const { return repair_ != Repair::Merge; }
  bool can_heal(const Gap& gap) const { return gap.before.block >= 0 && (sums_up() || gap.whole_blocks()); }

  void run_whole(at::Tensor& x, std::int64_t first, std::int64_t last) const { engine::run_windows(arch_, weights_, x, first, last); }
  void run_cut(at::Tensor& x, std::int64_t first, std::int64_t last) { engine::run_windows(cut_, changed_, x, first, last); }
  at::Tensor finish(at::Tensor x, std::int64_t from) {
    run_cut(x, from, model_.blocks());
    return x;
  }

  // The cut's stream to the input of a block; the whole model's too, unless it is there or further already.
  void advance(Streams& s, std::int64_t to) {
    cancel_point("nothing was written");
    for (std::int64_t i = s.at; i < to; ++i) {
      const auto block = static_cast<std::size_t>(i);
      if (arch_.sizes.blocks[block] != cut_.sizes.blocks[block]) s.part();
      if (!s.cut.is_same(s.whole)) run_cut(s.cut, i, i + 1);
      if (s.whole_at == i) run_whole(s.whole, i, i + 1), s.whole_at = i + 1;
    }
    s.at = to;
  }

  // Both streams are at the input of the block that holds gap.before, where the cut's stays; the whole model's goes to the end of the gap
  // if that is the input of a block.
  MissingSums sums(Streams& s, const Gap& gap) {
    SLMC_CHECK(s.at == gap.before.block && s.whole_at == s.at);
    s.part();
    const bool moves = gap.after.part == Part::Attention;
    const MissingSums out = missing_sums(cut_, changed_, gap.before, s.cut, [&](std::int64_t first, std::int64_t count) {
      at::Tensor target = s.whole.narrow(0, first, count);
      if (!moves) target = target.clone();
      run_to(arch_, weights_, target, s.at, gap.after);
      return target;
    });
    if (moves) s.whole_at = gap.after.block;
    return out;
  }

  // The change of the last linear map that explains most of what is missing on the held-out windows; nothing when none explains anything.
  Tensors solved(HealedGap& healed) {
    const std::string name = last_linear(healed.gap.before);
    const MissingSums fit = sums(fit_, healed.gap), held = sums(held_, healed.gap);
    const Refit best = refit(changed_.tensor(name).to(at::kCPU, at::kDouble), fit, held, repair_ == Repair::Linear, name);
    healed.explained = best.explained, healed.ridge = best.ridge;
    return best.delta.defined() ? Tensors{{name, best.delta}} : Tensors{};
  }

  Tensors merged(const Gap& gap) const {
    const std::string prefix = "block." + std::to_string(gap.before.block) + ".";
    Tensors out;
    for (const ir::TensorSpec& spec : model_.tensors()) {
      if (spec.derived || spec.block != gap.before.block) continue;
      const at::Tensor own = weights_.all().at(spec.name).to(at::kCPU, at::kDouble);
      at::Tensor sum = at::zeros_like(own);
      for (std::int64_t k = gap.before.block + 1; k < gap.after.block; ++k) {
        const auto other = weights_.all().find("block." + std::to_string(k) + "." + spec.name.substr(prefix.size()));
        if (other == weights_.all().end() || other->second.sizes() != own.sizes()) return {};      // other shapes can't be added
        sum += other->second.to(at::kCPU, at::kDouble) - own;
      }
      out[spec.name] = sum;
    }
    return out;
  }

  void set(const Tensors& change, double alpha) {
    for (const auto& [name, delta] : change) {
      const at::Tensor& original = weights_.all().at(name);
      const at::Tensor w = (original.to(at::kCPU, at::kDouble) + delta * alpha).to(at::kFloat);
      changed_.all()[name] = as_stored(w, *model_.find(name)).to(original.device());
    }
  }

  void heal_gap(HealedGap& healed) {
    const std::int64_t block = healed.gap.before.block;
    if (sums_up()) advance(fit_, block);
    advance(held_, block);
    healed.kl = judge_.of(finish(held_.cut.clone(), block)).kl;
    const Tensors change = sums_up() ? solved(healed) : merged(healed.gap);
    if (change.empty()) return;
    for (const double alpha : kAlphas) {
      set(change, alpha);
      const double kl = judge_.of(finish(held_.cut.clone(), block)).kl;
      if (kl < healed.kl) healed.kl = kl, healed.alpha = alpha;
    }
    set(change, healed.alpha);
    if (healed.alpha > 0) {
      for (const auto& [name, delta] : change) names_.insert(name);
    }
  }

  // A part with no gap behind it takes up what the gaps before it left over.
  void follow(HealedGap& healed) {
    advance(fit_, healed.gap.before.block);
    advance(held_, healed.gap.before.block);
    const Tensors change = solved(healed);
    if (healed.explained < kWorthIt) return;
    healed.alpha = 1;
    set(change, 1);
    names_.insert(last_linear(healed.gap.before));
  }

  const ir::Model& model_;
  engine::Arch arch_;
  const engine::Arch& cut_;
  engine::PlainWeights& weights_;                  // of the whole model
  engine::PlainWeights changed_;                   // of the cut: shares all that was not healed
  Repair repair_;
  const Judge& judge_;
  Streams fit_, held_;
  std::set<std::string> names_;                    // of healed tensors
};

}  // namespace

Healed heal(const ir::Model& model, engine::PlainWeights& weights, const engine::Arch& cut, Repair repair, const at::Tensor& windows,
            const Judge& judge, stage::Events& events) {
  return Healer(model, weights, cut, repair, judge).run(windows, events);
}

}  // namespace slmc::pruning
