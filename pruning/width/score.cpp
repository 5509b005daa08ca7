#include "pruning/width/score.h"

#include <fmt/format.h>

#include "core/cancel.h"
#include "core/error.h"
#include "engine/tensors.h"

namespace slmc::pruning {
namespace {

void require_formula(bool there, const Criterion& criterion, const char* structure) {
  if (there) return;
  throw Error(ErrorKind::Recipe, fmt::format("the criterion must have a formula for {}, but '{}' has none", structure, criterion.name),
              "random, minitron and taylor-kl score every structure, wanda all but the hidden width");
}

class Scorer {
 public:
  Scorer(const ir::Model& model, const engine::Statistics& statistics, const GradientScores& gradients, const Criterion& criterion,
         Aggregate aggregate, const Widths& widths, std::uint64_t seed)
      : model_(model), statistics_(statistics), gradients_(gradients), criterion_(criterion), aggregate_(aggregate), widths_(widths), seed_(seed) {}

  BlockScores of(std::int64_t block) {
    const ir::BlockSizes& sizes = model_.sizes().blocks[static_cast<std::size_t>(block)];
    BlockScores out;
    if (narrows(sizes.ffn, widths_.ffn_in(block))) out.ffn = ffn(block);
    if (!narrows_attention(sizes, widths_)) return out;
    if (narrows(sizes.kv, widths_.kv)) out.kv = criterion_.kv(attention(block, sizes, *widths_.kv, "kv"));
    if (narrows(sizes.q, widths_.heads)) out.heads = criterion_.heads(attention(block, sizes, *widths_.heads, "heads"));
    return out;
  }

  at::Tensor hidden() const {
    HiddenPart part{.gradients = gradients_.hidden, .aggregate = aggregate_, .hidden = model_.sizes().hidden, .rng = rng(0, "hidden")};
    for (const ir::TensorSpec& spec : model_.tensors()) {
      if (!criterion_.wants.window_mean_abs || spec.block < 0 || !is_stream_norm(spec.name)) continue;
      const std::string site = spec.name.ends_with(".attn.norm") ? ".attn.q.in" : ".ffn.up.in";
      part.norm_mean_abs.push_back(statistics_.at("block." + std::to_string(spec.block) + site, engine::Statistic::WindowAbs));
    }
    return criterion_.hidden(part);
  }

 private:
  Rng rng(std::int64_t block, const char* part) const { return Rng(derive_seed(seed_, part), static_cast<std::uint64_t>(block)); }

  BlockGradients gradients_of(std::int64_t block) const {
    return gradients_.blocks.empty() ? BlockGradients{} : gradients_.blocks[static_cast<std::size_t>(block)];
  }

  at::Tensor tensor(const std::string& name) const {
    return model_.has(name) ? engine::to_tensor(model_.read(name), at::kFloat) : at::Tensor();
  }

  at::Tensor ffn(std::int64_t block) const {
    const std::string prefix = "block." + std::to_string(block) + ".ffn.";
    return criterion_.ffn({.gate = tensor(prefix + "gate"), .up = tensor(prefix + "up"), .down = tensor(prefix + "down"),
                           .inputs = inputs_of(statistics_, prefix + "down", criterion_.wants), .gradients = gradients_of(block).ffn,
                           .aggregate = aggregate_, .keep = *widths_.ffn_in(block), .rng = rng(block, "ffn")});
  }

  KvPart attention(std::int64_t block, const ir::BlockSizes& sizes, std::int64_t keep, const char* what) const {
    const std::string prefix = "block." + std::to_string(block) + ".attn.";
    return {.q = tensor(prefix + "q"), .k = tensor(prefix + "k"), .v = tensor(prefix + "v"), .o = tensor(prefix + "o"),
            .inputs = inputs_of(statistics_, prefix + "o", criterion_.wants), .gradients = gradients_of(block).attention,
            .aggregate = aggregate_, .groups = sizes.kv, .heads = sizes.q, .keep = keep, .rng = rng(block, what)};
  }

  const ir::Model& model_;
  const engine::Statistics& statistics_;
  const GradientScores& gradients_;
  const Criterion& criterion_;
  Aggregate aggregate_;
  const Widths& widths_;
  std::uint64_t seed_;
};

}  // namespace

void require_formulas(const Criterion& criterion, const ir::Sizes& sizes, const Widths& widths) {
  for (std::size_t i = 0; i < sizes.blocks.size(); ++i) {
    const ir::BlockSizes& block = sizes.blocks[i];
    if (narrows(block.ffn, widths.ffn_in(static_cast<std::int64_t>(i)))) require_formula(criterion.ffn, criterion, "feed-forward channels");
    if (narrows(block.kv, widths.kv)) require_formula(criterion.kv, criterion, "key/value groups");
    if (narrows(block.q, widths.heads)) require_formula(criterion.heads, criterion, "query heads");
  }
  if (narrows(sizes.hidden, widths.hidden)) require_formula(criterion.hidden, criterion, "the hidden width");
}

Scores scores_of(const ir::Model& model, const engine::Statistics& statistics, const GradientScores& gradients, const Criterion& criterion,
                 Aggregate aggregate, const Widths& widths, std::uint64_t seed) {
  Scorer scorer(model, statistics, gradients, criterion, aggregate, widths, seed);
  Scores out;
  for (std::int64_t i = 0; i < model.blocks(); ++i) {
    cancel_point("nothing was written");
    out.blocks.push_back(scorer.of(i));
  }
  if (narrows(model.sizes().hidden, widths.hidden)) out.hidden = scorer.hidden();
  return out;
}

}  // namespace slmc::pruning
