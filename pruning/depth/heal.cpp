#include "pruning/depth/heal.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <array>
#include <set>

#include "core/cancel.h"
#include "engine/moments.h"
#include "engine/solve.h"
#include "engine/stream.h"
#include "pruning/stored.h"

namespace slmc::pruning {
namespace {

constexpr std::array<double, 4> kRidges = {1e-3, 1e-2, 1e-1, 1};
constexpr std::array<double, 3> kAlphas = {1, 0.75, 0.5};
constexpr std::int64_t kGroup = 16;                // windows whose inner activations are in memory together

// The same windows through the whole model and through the cut one, both at the input of some block of the whole model. One tensor until the
// first removed block.
struct Streams {
  at::Tensor whole, cut;                           // [n, seq, hidden]
  void part() {
    if (cut.is_same(whole)) cut = whole.clone();
  }
};

struct Sums {
  at::Tensor a, r;                                 // A [ffn, ffn], R [hidden, ffn]
  double size = 0;                                 // E|t - y|²
};

at::Tensor rows(const at::Tensor& x) { return x.flatten(0, 1); }

// tr(X Yᵀ) of fp64 matrices, row by row in order.
double trace_of_product(const at::Tensor& x, const at::Tensor& y) {
  double sum = 0;
  const at::Tensor a = x.contiguous(), b = y.contiguous();
  for (std::int64_t i = 0; i < a.numel(); ++i) sum += a.const_data_ptr<double>()[i] * b.const_data_ptr<double>()[i];
  return sum;
}

class Healer {
 public:
  Healer(const ir::Model& model, engine::PlainWeights& weights, const std::vector<std::int64_t>& removed, const Judge& judge)
      : model_(model), arch_(engine::arch_of(model)), weights_(weights), removed_(removed.begin(), removed.end()), judge_(judge) {}

  Healed run(const at::Tensor& windows, stage::Events& events) {
    const at::Tensor x = engine::embed_windows(arch_, weights_, windows, judge_.start().device()), y = judge_.start().clone();
    Streams fit{x, x}, held{y, y};
    Healed out;
    const std::vector<Gap> gaps = gaps_of({removed_.begin(), removed_.end()});
    double kl = judge_.of(finish(judge_.start().clone(), 0)).kl;
    std::int64_t at = 0;
    for (const Gap& gap : gaps) {
      cancel_point("nothing was written");
      out.gaps.push_back({.gap = gap, .kl = kl});
      if (can_heal(gap)) {
        advance(fit, at, gap.before);
        advance(held, at, gap.before);
        heal_gap(out.gaps.back(), fit, held);
        kl = out.gaps.back().kl;
        at = gap.last + 1;
      }
      events.progress("gaps healed", static_cast<std::int64_t>(out.gaps.size()), static_cast<std::int64_t>(gaps.size()));
    }
    for (const auto& [name, original] : originals_) {
      out.weights[name] = weights_.tensor(name);
      weights_.all()[name] = original;
    }
    return out;
  }

 private:
  bool can_heal(const Gap& gap) const { return gap.before >= 0 && arch_.sizes.blocks[static_cast<std::size_t>(gap.before)].ffn > 0; }

  void advance(Streams& s, std::int64_t from, std::int64_t to) {
    for (std::int64_t i = from; i < to; ++i) {
      if (removed_.contains(i)) s.part();
      engine::run_windows(arch_, weights_, s.whole, i, i + 1);
      if (!s.cut.is_same(s.whole) && !removed_.contains(i)) engine::run_windows(arch_, weights_, s.cut, i, i + 1);
    }
  }

  // x through the cut model from block `from` of the whole one.
  at::Tensor finish(at::Tensor x, std::int64_t from) const {
    for (std::int64_t i = from; i < model_.blocks(); ++i) {
      if (!removed_.contains(i)) engine::run_windows(arch_, weights_, x, i, i + 1);
    }
    return x;
  }

  // Takes the whole model's stream past the gap; the cut one stays at the input of the block before it.
  Sums sums(Streams& s, const Gap& gap) {
    s.part();
    const ir::BlockSizes& sizes = arch_.sizes.blocks[static_cast<std::size_t>(gap.before)];
    engine::GramSum a(sizes.ffn, s.cut.device());
    engine::CrossSum r(arch_.sizes.hidden, sizes.ffn, s.cut.device());
    engine::ChannelSum size(engine::ChannelSum::Of::Square, arch_.sizes.hidden, s.cut.device());
    for (std::int64_t first = 0; first < s.whole.size(0); first += kGroup) {
      cancel_point("nothing was written");
      const std::int64_t count = std::min(kGroup, s.whole.size(0) - first);
      at::Tensor target = s.whole.narrow(0, first, count), own = s.cut.narrow(0, first, count).clone();
      engine::run_windows(arch_, weights_, target, gap.before, gap.last + 1);
      at::Tensor inputs;                           // of ffn.down, the last step
      for (engine::BlockSteps steps(arch_, weights_, gap.before, own); !steps.done(); steps.next()) inputs = steps.inputs();
      const at::Tensor missing = rows(target) - rows(own);
      a.add(inputs), r.add(missing, inputs), size.add(missing);
    }
    return {a.mean(), r.mean(), size.mean().sum().item<double>()};
  }

  // The change of weights that explains most of what is missing on the held-out windows; undefined when none explains anything.
  at::Tensor change(HealedGap& healed, const Sums& fit, const Sums& held, const std::string& name) const {
    at::Tensor best;
    for (const double ridge : kRidges) {
      const at::Tensor delta = engine::solve_right(engine::factor(fit.a, ridge, name + ".in"), fit.r);
      const double explained = (2 * trace_of_product(delta, held.r) - engine::output_error(delta, held.a)) / held.size;
      if (explained <= healed.explained) continue;
      best = delta, healed.explained = explained, healed.ridge = ridge;
    }
    return best;
  }

  void heal_gap(HealedGap& healed, Streams& fit, Streams& held) {
    const std::int64_t block = healed.gap.before;
    const std::string name = "block." + std::to_string(block) + ".ffn.down";
    const Sums fit_sums = sums(fit, healed.gap), held_sums = sums(held, healed.gap);
    const at::Tensor original = weights_.tensor(name), delta = change(healed, fit_sums, held_sums, name);
    at::Tensor best = original;
    if (delta.defined()) {
      for (const double alpha : kAlphas) {
        const at::Tensor now = as_stored((original.to(at::kCPU, at::kDouble) + delta * alpha).to(at::kFloat), *model_.find(name)).to(original.device());
        weights_.all()[name] = now;
        const double kl = judge_.of(finish(held.cut.clone(), block)).kl;
        if (kl < healed.kl) best = now, healed.kl = kl, healed.alpha = alpha;
      }
    }
    weights_.all()[name] = best;
    if (healed.alpha > 0) originals_[name] = original;
    engine::run_windows(arch_, weights_, fit.cut, block, block + 1);
    engine::run_windows(arch_, weights_, held.cut, block, block + 1);
  }

  const ir::Model& model_;
  engine::Arch arch_;
  engine::PlainWeights& weights_;
  std::set<std::int64_t> removed_;
  const Judge& judge_;
  std::map<std::string, at::Tensor> originals_;
};

}  // namespace

std::vector<Gap> gaps_of(const std::vector<std::int64_t>& removed) {
  std::vector<Gap> out;
  for (const std::int64_t block : removed) {
    if (!out.empty() && out.back().last == block - 1) {
      out.back().last = block;
    } else {
      out.push_back({block - 1, block, block});
    }
  }
  return out;
}

Healed heal(const ir::Model& model, engine::PlainWeights& weights, const std::vector<std::int64_t>& removed, const at::Tensor& windows,
            const Judge& judge, stage::Events& events) {
  return Healer(model, weights, removed, judge).run(windows, events);
}

}  // namespace slmc::pruning
