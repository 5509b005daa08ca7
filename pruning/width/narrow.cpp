#include "pruning/width/narrow.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <array>
#include <optional>

#include "core/cancel.h"
#include "core/error.h"
#include "engine/moments.h"
#include "engine/solve.h"
#include "engine/stream.h"
#include "pruning/stored.h"

namespace slmc::pruning {
namespace {

constexpr std::array<double, 4> kRidges = {1e-4, 1e-3, 1e-2, 1e-1};
constexpr std::int64_t kHeldOutShare = 8;            // one window of eight judges

struct Grams {
  at::Tensor fit, held_out;                          // [n, n] fp64
};

std::int64_t held_out_windows(std::int64_t windows) { return windows < 2 ? 0 : std::max<std::int64_t>(1, windows / kHeldOutShare); }

at::Tensor gram_of(const at::Tensor& x) {
  engine::GramSum sum(x.size(1), x.device());
  sum.add(x);
  return sum.mean();
}

// inputs [windows * seq, n]. A single window both fits and judges.
Grams grams_of(const at::Tensor& inputs, std::int64_t windows) {
  const std::int64_t held = held_out_windows(windows) * (inputs.size(0) / windows);
  if (held == 0) {
    const at::Tensor all = gram_of(inputs);
    return {all, all};
  }
  return {gram_of(inputs.narrow(0, 0, inputs.size(0) - held)), gram_of(inputs.narrow(0, inputs.size(0) - held, held))};
}

at::Tensor channel_mean(engine::ChannelSum::Of of, const at::Tensor& rows) {
  engine::ChannelSum sum(of, rows.size(1), rows.device());
  sum.add(rows);
  return sum.mean();
}

// Of all windows but the held-out ones.
Inputs measured(const at::Tensor& inputs, std::int64_t windows, const Wants& wants) {
  using Of = engine::ChannelSum::Of;
  const std::int64_t seq = inputs.size(0) / windows, fit = windows - held_out_windows(windows);
  const at::Tensor rows = inputs.narrow(0, 0, fit * seq);
  Inputs out;
  if (wants.mean_square) out.mean_square = channel_mean(Of::Square, rows);
  if (wants.mean) out.mean = channel_mean(Of::Value, rows);
  if (wants.gram) out.gram = gram_of(rows);
  if (!wants.window_mean_abs) return out;
  out.window_mean_abs = at::empty({fit, inputs.size(1)}, at::kDouble);
  for (std::int64_t i = 0; i < fit; ++i) out.window_mean_abs[i].copy_(channel_mean(Of::Abs, rows.narrow(0, i * seq, seq)));
  return out;
}

// Columns of attn.o that belong to the kept groups.
std::vector<std::int64_t> columns_of(const std::vector<std::int64_t>& groups, std::int64_t width) {
  std::vector<std::int64_t> out;
  for (const std::int64_t g : groups) {
    for (std::int64_t j = 0; j < width; ++j) out.push_back(g * width + j);
  }
  return out;
}

at::Tensor index_tensor(const std::vector<std::int64_t>& v) {
  at::Tensor t = at::empty({static_cast<std::int64_t>(v.size())}, at::kLong);
  std::copy(v.begin(), v.end(), t.mutable_data_ptr<std::int64_t>());
  return t;
}

class Walk {
 public:
  Walk(const ir::Model& model, const NarrowSettings& settings, std::int64_t windows)
      : model_(model), settings_(settings), criterion_(criterion(settings.criterion)), windows_(windows),
        scores_(static_cast<std::size_t>(model.blocks())) {}

  // Scores, chooses and refits one map; its pruned columns become zeros in `weights`, so that the stream feels the cut.
  void visit(std::int64_t block, const engine::BlockSteps& steps, engine::PlainWeights& weights) {
    const std::string map = steps.linears().front();
    const ir::BlockSizes& sizes = model_.sizes().blocks[static_cast<std::size_t>(block)];
    const bool ffn = map.ends_with("ffn.down") && narrows(sizes.ffn, settings_.widths.ffn);
    const bool kv = map.ends_with("attn.o") && narrows(sizes.kv, settings_.widths.kv);
    if (!ffn && !kv) return;
    std::optional<Grams> grams;
    if (settings_.refit) grams = grams_of(steps.inputs(), windows_);
    const Inputs inputs = criterion_.wants.inputs() ? measured(steps.inputs(), windows_, criterion_.wants) : Inputs{};
    std::vector<std::int64_t> kept;
    if (ffn) {
      score_ffn(block, weights, inputs);
      kept = keep_best(scores_[static_cast<std::size_t>(block)].ffn, *settings_.widths.ffn);
    } else {
      score_kv(block, weights, inputs);
      kept = columns_of(keep_best(scores_[static_cast<std::size_t>(block)].kv, *settings_.widths.kv), sizes.q * sizes.vd);
    }
    at::Tensor& w = weights.all()[map];
    const at::Tensor columns = index_tensor(kept);
    at::Tensor now = w.to(at::kCPU, at::kFloat).index_select(1, columns);
    if (grams) now = refit(map, w.to(at::kCPU, at::kFloat), *grams, kept, now);
    w = at::zeros_like(w).index_copy_(1, columns.to(w.device()), now.to(w.device()));
  }

  // Weights alone: no text, no stream.
  void score_only(std::int64_t block, engine::PlainWeights& weights) {
    const ir::BlockSizes& sizes = model_.sizes().blocks[static_cast<std::size_t>(block)];
    if (narrows(sizes.ffn, settings_.widths.ffn)) score_ffn(block, weights, {});
    if (narrows(sizes.kv, settings_.widths.kv)) score_kv(block, weights, {});
  }

  Narrowed finish() {
    Narrowed out{decide(model_, scores_, settings_.widths), std::move(maps_)};
    for (auto& [name, value] : values_) out.plan.set[name].value = std::move(value);
    return out;
  }

 private:
  Rng rng(std::int64_t block, const char* part) const {
    return Rng(derive_seed(settings_.seed, part), static_cast<std::uint64_t>(block));
  }

  void score_ffn(std::int64_t block, engine::PlainWeights& weights, const Inputs& inputs) {
    const std::string prefix = "block." + std::to_string(block) + ".ffn.";
    const auto tensor = [&](const char* part) { return weights.tensor(prefix + part).to(at::kCPU); };
    const at::Tensor gate = weights.has(prefix + "gate") ? tensor("gate") : at::Tensor();
    scores_[static_cast<std::size_t>(block)].ffn = criterion_.ffn(
        {.gate = gate, .up = tensor("up"), .down = tensor("down"), .inputs = inputs, .keep = *settings_.widths.ffn, .rng = rng(block, "ffn")});
  }

  void score_kv(std::int64_t block, engine::PlainWeights& weights, const Inputs& inputs) {
    const std::string prefix = "block." + std::to_string(block) + ".attn.";
    const auto tensor = [&](const char* part) { return weights.tensor(prefix + part).to(at::kCPU); };
    const ir::BlockSizes& sizes = model_.sizes().blocks[static_cast<std::size_t>(block)];
    scores_[static_cast<std::size_t>(block)].kv =
        criterion_.kv({.q = tensor("q"), .k = tensor("k"), .v = tensor("v"), .o = tensor("o"), .inputs = inputs, .groups = sizes.kv,
                       .heads = sizes.q, .keep = *settings_.widths.kv, .rng = rng(block, "kv")});
  }

  // The refitted columns with the ridge that does best on the held-out windows; the plain cut where none does better.
  at::Tensor refit(const std::string& map, const at::Tensor& w, const Grams& grams, const std::vector<std::int64_t>& kept, const at::Tensor& cut) {
    NarrowedMap report{.name = map, .cut = engine::removal_error(w, grams.held_out, kept, cut)};
    report.refitted = report.cut;
    at::Tensor best = cut;
    for (const double ridge : kRidges) {
      const at::Tensor now = as_stored(engine::refit_kept(w, grams.fit, kept, ridge, map + ".in").to(at::kFloat), *model_.find(map));
      const double error = engine::removal_error(w, grams.held_out, kept, now);
      if (error >= report.refitted) continue;
      best = now, report.refitted = error, report.ridge = ridge;
    }
    maps_.push_back(report);
    values_[map] = stored_data(best, *model_.find(map));
    return best;
  }

  const ir::Model& model_;
  const NarrowSettings& settings_;
  const Criterion& criterion_;
  std::int64_t windows_;
  std::vector<BlockScores> scores_;
  std::map<std::string, io::TensorData> values_;
  std::vector<NarrowedMap> maps_;
};

}  // namespace

Narrowed narrow(const ir::Model& model, const at::Tensor& windows, const NarrowSettings& settings, stage::Events& events) {
  const bool text = settings.refit || criterion(settings.criterion).wants.text();
  const engine::Arch arch = engine::arch_of(model);
  at::Tensor x;
  if (text) {
    engine::PlainWeights outside = engine::load_block(model, -1, at::kFloat, settings.device, engine::Storage::Mapped);
    x = engine::embed_windows(arch, outside, windows, settings.device);
  }
  Walk walk(model, settings, text ? windows.size(0) : 0);
  for (std::int64_t i = 0; i < model.blocks(); ++i) {
    cancel_point("nothing was written");
    engine::PlainWeights weights = engine::load_block(model, i, at::kFloat, settings.device, engine::Storage::Mapped);
    if (text) {
      for (engine::BlockSteps steps(arch, weights, i, x); !steps.done(); steps.next()) walk.visit(i, steps, weights);
    } else {
      walk.score_only(i, weights);
    }
    events.progress("blocks narrowed", i + 1, model.blocks());
  }
  return walk.finish();
}

}  // namespace slmc::pruning
