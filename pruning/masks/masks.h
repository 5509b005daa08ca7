#pragma once
// Learned masks over a model's axes, one per axis that a target makes smaller, and the constraints that lead each to its size
// [Sheared LLaMA, arXiv:2310.06694, section 2.1].
//   kind     gate             mask            a constraint for each
//   hidden   hidden           [hidden]        -                            one set, shared by the whole residual stream
//   blocks   block            [blocks]        -                            whole blocks
//   kv       block.{i}.kv     [kv]            block                        key/value groups with their query heads
//   heads    block.{i}.kv.q   [kv, q]         block and group              query heads; every group keeps as many
//   ffn      block.{i}.ffn    [ffn]           block                        feed-forward channels
// For a constraint over n entries of which k stay: sparsity s = 1 - sum P(z > 0) / n, target t = r (1 - k / n), r rising from 0 to 1 over the
// first updates; penalty lambda (s - t) + phi (s - t)^2, averaged over the constraints of a kind, summed over kinds. Masks descend on it,
// lambda and phi, both from 0, ascend.
// Differs from the published code: a lambda and a phi for each constraint, as in the paper, where the code has one pair for each kind; and
// the constraint of heads, which the code has only for models without shared groups.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/hooks.h"
#include "engine/train/adamw.h"
#include "ir/plan.h"

namespace slmc::pruning {

// What stays: of the residual stream, of the blocks, and of each block, or each group of a block. Nothing = all.
struct Target {
  std::optional<std::int64_t> hidden, blocks, kv, heads, ffn;
};

struct Mask {
  std::string kind;               // the target's word: "ffn"
  std::string gate;               // the gate's name: "block.3.ffn"
  std::int64_t keep = 0;          // entries that stay, of each row
  at::Tensor log_alpha;           // [.., n], a trained leaf; one constraint for each row
  at::Tensor lambda, phi;         // [..], trained leaves
  at::Tensor noise;               // [.., n], of this update
};

class Masks {
 public:
  // All open. Error(Recipe) when a target is more than every block has, or nothing would go.
  Masks(const ir::Sizes& sizes, const Target& target, std::uint64_t seed, at::ScalarType dtype, at::Device device);

  // Two groups of parameters: log alphas, and multipliers, at these factors of the schedule's rate.
  std::vector<engine::ParameterGroup> groups(double masks, double multipliers) const;
  // Before an update: puts log alpha back into its range and draws the update's noise, a pure function of (seed, gate, step).
  void begin_step(std::int64_t step);

  engine::Gates drawn() const;                  // random, with gradients
  engine::Gates settled() const;                // in [0, 1], without chance and without gradients
  engine::Gates top() const;                    // 0 or 1: in each row the `keep` largest log alphas are 1; of equals the first
  // The penalty with the targets at `ramp` in [0, 1] of their way: scalar fp64 with gradients, those of lambda and phi turned round.
  at::Tensor penalty(double ramp) const;

  const std::vector<Mask>& all() const { return masks_; }
  std::vector<std::string> kinds() const;       // without repetition, in the order of the masks

  // The cut that top() stands for, of a model with the sizes that the masks were made for.
  ir::Plan plan(const ir::Model& model) const;

 private:
  std::vector<Mask> masks_;
  std::uint64_t seed_;
};

// Where a kind is: means over its constraints.
struct KindState {
  double sparsity = 0, target = 0, lambda = 0, phi = 0;
  double gap = 0;                 // largest |expected size - keep| of a constraint, in entries
};
KindState state_of(const Masks& masks, const std::string& kind, double ramp);

}  // namespace slmc::pruning
