#pragma once
// Legal random plans of any model, for generated tests: every axis alone, and seeded combinations. No torch.
// Kept entries are in order and not repeated, so that each plan is a set of gates too: an entry of `take` is
// a gate that is 1 on the kept coordinates and 0 elsewhere
// ("block.{i}.kv.{g}.q" is row g of the gate "block.{i}.kv.q").
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "core/rng.h"
#include "ir/plan.h"

namespace slmc::testing {

class PlanMaker {
 public:
  PlanMaker(const ir::Model& model, std::uint64_t seed) : model_(model), rng_(seed) {}

  // Kinds of axes that this model has more than one entry of: "vocab", "hidden", "pos", "block", "kv", "q",
  // "freq", "pass", "vd", "ffn", and the parts that can be removed whole: "attention", "feed-forward".
  std::vector<std::string> kinds() const {
    const ir::Sizes& s = model_.sizes();
    std::vector<std::string> kinds;
    if (s.vocab > 1) kinds.push_back("vocab");
    if (s.hidden > 1) kinds.push_back("hidden");
    if (s.pos > 1) kinds.push_back("pos");
    if (s.blocks.size() > 1) kinds.push_back("block");
    const auto any = [&](std::int64_t ir::BlockSizes::*size) {
      return std::any_of(s.blocks.begin(), s.blocks.end(),
                         [&](const ir::BlockSizes& b) { return b.*size > 1; });
    };
    if (any(&ir::BlockSizes::kv)) kinds.push_back("kv");
    if (any(&ir::BlockSizes::q)) kinds.push_back("q");
    if (any(&ir::BlockSizes::freq)) kinds.push_back("freq");
    if (any(&ir::BlockSizes::pass)) kinds.push_back("pass");
    if (any(&ir::BlockSizes::vd)) kinds.push_back("vd");
    if (any(&ir::BlockSizes::ffn)) kinds.push_back("ffn");
    kinds.push_back("attention");
    kinds.push_back("feed-forward");
    return kinds;
  }

  // Cuts one kind of axis; inner axes are cut in every block, each in its own way.
  ir::Plan alone(const std::string& kind) {
    ir::Plan plan(model_);
    add(plan, kind);
    return plan;
  }

  // Each kind with probability one half, inner axes in about half of the blocks.
  ir::Plan combined() {
    ir::Plan plan(model_);
    for (const std::string& kind : kinds())
      if (chance(0.5)) add(plan, kind, 0.5);
    return plan;
  }

  // Cuts that leave all blocks alike, which is what today's containers hold: each kind with probability one
  // half, or exactly the given ones. Parts that are removed whole are never among them.
  ir::Plan uniform(const std::vector<std::string>& only = {}) {
    ir::Plan plan(model_);
    const ir::Sizes& s = model_.sizes();
    for (const std::string& kind : kinds()) {
      if (kind == "attention" || kind == "feed-forward") continue;
      if (only.empty() ? !chance(0.5) : std::find(only.begin(), only.end(), kind) == only.end()) continue;
      if (kind == "vocab" || kind == "hidden" || kind == "pos" || kind == "block") {
        add(plan, kind);
        continue;
      }
      const std::int64_t size = s.of(kind, 0);
      const auto count = 1 + static_cast<std::int64_t>(rng_.below(static_cast<std::uint64_t>(size), n_++));
      for (std::size_t b = 0; b < s.blocks.size(); ++b) {
        const std::string prefix = "block." + std::to_string(b) + ".";
        if (kind != "q")
          plan.take[prefix + kind] = some_of(size, count);
        else
          for (std::int64_t g = 0; g < s.blocks[b].kv; ++g)
            plan.take[prefix + "kv." + std::to_string(g) + ".q"] = some_of(size, count);
      }
    }
    return plan;
  }

 private:
  bool chance(double p) { return rng_.uniform(n_++) < p; }

  // A random subset of 1 .. size entries, in order.
  std::vector<std::int64_t> some(std::int64_t size) {
    return some_of(size, 1 + static_cast<std::int64_t>(rng_.below(static_cast<std::uint64_t>(size), n_++)));
  }
  std::vector<std::int64_t> some_of(std::int64_t size, std::int64_t count) {
    std::vector<std::int64_t> all = Rng(rng_.bits(n_++)).permutation(size);
    all.resize(static_cast<std::size_t>(count));
    std::sort(all.begin(), all.end());
    return all;
  }

  // Rows of the learned positions: those before the first token's stay, and at least one behind them.
  std::vector<std::int64_t> positions() {
    const std::int64_t offset = model_.decoder().pos_offset;
    std::vector<std::int64_t> rows = some(model_.sizes().pos - offset);
    for (std::int64_t& row : rows) row += offset;
    for (std::int64_t i = offset; i-- > 0;) rows.insert(rows.begin(), i);
    return rows;
  }

  void add(ir::Plan& plan, const std::string& kind, double share = 1) {
    const ir::Sizes& s = model_.sizes();
    if (kind == "vocab" || kind == "hidden" || kind == "pos" || kind == "block") {
      plan.take[kind] = kind == "pos" ? positions() : some(s.of(kind));
      return;
    }
    for (std::size_t b = 0; b < s.blocks.size(); ++b) {
      if (!chance(share)) continue;
      const std::string prefix = "block." + std::to_string(b) + ".";
      const ir::BlockSizes& size = s.blocks[b];
      if (kind == "feed-forward") {
        if (size.ffn > 0 && chance(0.5)) plan.take[prefix + "ffn"] = {};
        continue;
      }
      if (kind == "ffn") {
        if (size.ffn > 0 && !plan.take.contains(prefix + "ffn")) plan.take[prefix + "ffn"] = some(size.ffn);
        continue;
      }
      if (size.heads() == 0) continue;
      if (kind == "attention" && chance(0.5)) plan.take[prefix + "kv"] = {};
      if (kind == "kv" && !plan.take.contains(prefix + "kv")) plan.take[prefix + "kv"] = some(size.kv);
      if (kind == "freq" && size.freq > 0) plan.take[prefix + "freq"] = some(size.freq);
      if (kind == "pass" && size.pass > 0) plan.take[prefix + "pass"] = some(size.pass);
      if (kind == "vd") plan.take[prefix + "vd"] = some(size.vd);
      if (kind != "q") continue;
      const auto count = 1 + static_cast<std::int64_t>(rng_.below(static_cast<std::uint64_t>(size.q), n_++));
      for (std::int64_t g = 0; g < size.kv; ++g)
        plan.take[prefix + "kv." + std::to_string(g) + ".q"] = some_of(size.q, count);
    }
  }

  const ir::Model model_;
  Rng rng_;
  std::uint64_t n_ = 0;
};

}  // namespace slmc::testing
