#include "pruning/depth/heal.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <array>
#include <set>

#include "core/cancel.h"
#include "core/error.h"
#include "engine/moments.h"
#include "engine/solve.h"
#include "engine/stream.h"
#include "pruning/stored.h"

namespace slmc::pruning {
namespace {

using Tensors = std::map<std::string, at::Tensor>;

constexpr std::array<double, 4> kRidges = {1e-3, 1e-2, 1e-1, 1};
constexpr std::array<double, 3> kAlphas = {1, 0.75, 0.5};
constexpr double kWorthIt = 1e-3;                  // share that a part without a gap behind it must explain to be changed
constexpr int kIdleParts = 4;                      // after so many that did not, the rest up to the next gap is left alone
constexpr std::int64_t kGroup = 16;                // windows whose inner activations are in memory together

// The same windows through the whole model and through the cut one. One tensor until the first gap.
struct Streams {
  at::Tensor whole, cut;                           // [n, seq, hidden]
  std::int64_t at = 0, whole_at = 0;               // the block at whose input they are; the whole model's may be further
  void part() {
    if (cut.is_same(whole)) cut = whole.clone();
  }
};

struct Sums {
  at::Tensor a, r;                                 // A [in, in], R [hidden, in]
  double size = 0;                                 // E|g (t - y)|²
};

at::Tensor rows(const at::Tensor& x) { return x.flatten(0, 1); }

std::string last_linear(const Unit& part) {
  return "block." + std::to_string(part.block) + (part.part == Part::Attention ? ".attn.o" : ".ffn.down");
}

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

  // x, the whole model's stream at the input of block `from`, to where the part begins.
  void run_whole_to(at::Tensor& x, std::int64_t from, const Unit& part) const {
    run_whole(x, from, part.block);
    if (part.block == model_.blocks() || part.part == Part::Attention) return;
    engine::run_windows(without(arch_, Unit{part.block, Part::FeedForward}), weights_, x, part.block, part.block + 1);
  }

  // Both streams are at the input of the block that holds gap.before, where the cut's stays; the whole model's goes to the end of the gap
  // if that is the input of a block.
  Sums sums(Streams& s, const Gap& gap) {
    SLMC_CHECK(s.at == gap.before.block && s.whole_at == s.at);
    s.part();
    const std::string name = last_linear(gap.before);
    const std::int64_t inputs = model_.find(name)->shape[1];
    const bool moves = gap.after.part == Part::Attention;
    engine::GramSum a(inputs, s.cut.device());
    engine::CrossSum r(arch_.sizes.hidden, inputs, s.cut.device());
    engine::ChannelSum size(engine::ChannelSum::Of::Square, arch_.sizes.hidden, s.cut.device());
    for (std::int64_t first = 0; first < s.whole.size(0); first += kGroup) {
      cancel_point("nothing was written");
      const std::int64_t count = std::min(kGroup, s.whole.size(0) - first);
      at::Tensor target = s.whole.narrow(0, first, count), own = s.cut.narrow(0, first, count).clone(), x;
      if (!moves) target = target.clone();
      run_whole_to(target, s.at, gap.after);
      engine::BlockSteps steps(cut_, changed_, s.at, own);
      for (bool found = false; !found; steps.next()) {
        SLMC_CHECK(!steps.done());
        found = steps.linears().front() == name;
        x = steps.inputs();
      }
      const at::Tensor g = engine::reciprocal_lengths(rows(target));
      const at::Tensor missing = (rows(target) - rows(own)) * g;
      x = x * g;
      a.add(x), r.add(missing, x), size.add(missing);
    }
    if (moves) s.whole_at = gap.after.block;
    return {a.mean(), r.mean(), size.mean().sum().item<double>()};
  }

  // The change of the last linear map that explains most of what is missing on the held-out windows; nothing when none explains anything.
  Tensors solved(HealedGap& healed) {
    const std::string name = last_linear(healed.gap.before);
    const Sums fit = sums(fit_, healed.gap), held = sums(held_, healed.gap);
    const at::Tensor w = changed_.tensor(name).to(at::kCPU, at::kDouble);
    const bool linear = repair_ == Repair::Linear;
    const at::Tensor a = linear ? engine::product(engine::product(w, fit.a), w.t()) : fit.a, r = linear ? engine::product(fit.r, w.t()) : fit.r;
    Tensors best;
    for (const double ridge : kRidges) {
      at::Tensor delta = engine::solve_right(engine::factor(a, ridge, name + ".in"), r);
      if (linear) delta = engine::product(delta, w);
      const double explained = (2 * engine::trace_of_product(delta, held.r) - engine::output_error(delta, held.a)) / held.size;
      if (!(explained > healed.explained)) continue;
      best[name] = delta, healed.explained = explained, healed.ridge = ridge;
    }
    return best;
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

bool Gap::whole_blocks() const {
  return before.part == Part::FeedForward && after.part == Part::Attention &&
         removed.size() == 2 * static_cast<std::size_t>(after.block - before.block - 1);
}

std::vector<Gap> sites_of(const ir::Sizes& whole, const ir::Sizes& cut, bool followers) {
  const Unit end{static_cast<std::int64_t>(whole.blocks.size()), Part::Attention};
  std::vector<Gap> all = {{{-1, Part::FeedForward}, {}, end}};       // one for each kept part, and one for the front
  const auto visit = [&](const Unit& part, std::int64_t there, std::int64_t left) {
    if (there == 0) return;
    if (left == 0) return all.back().removed.push_back(part);
    all.back().after = part;
    all.push_back({part, {}, end});
  };
  for (std::int64_t i = 0; i < end.block; ++i) {
    const ir::BlockSizes &before = whole.blocks[static_cast<std::size_t>(i)], &now = cut.blocks[static_cast<std::size_t>(i)];
    visit({i, Part::Attention}, before.heads(), now.heads());
    visit({i, Part::FeedForward}, before.ffn, now.ffn);
  }
  std::vector<Gap> out;
  for (Gap& gap : all) {
    if (!gap.removed.empty() || (followers && !out.empty())) out.push_back(std::move(gap));
  }
  return out;
}

Healed heal(const ir::Model& model, engine::PlainWeights& weights, const engine::Arch& cut, Repair repair, const at::Tensor& windows,
            const Judge& judge, stage::Events& events) {
  return Healer(model, weights, cut, repair, judge).run(windows, events);
}

}  // namespace slmc::pruning
