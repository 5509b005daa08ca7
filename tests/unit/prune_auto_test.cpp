// `criterion: auto`: the KL that each criterion is judged by, and who wins.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/log_softmax.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "engine/decoder.h"
#include "methods_testing.h"
#include "pruning/width/auto.h"

namespace slmc::pruning {
namespace {

using testing_methods::random_model;
using testing_methods::random_windows;
using testing_methods::SilentEvents;

at::Tensor log_probs(const ir::Model& model, const at::Tensor& windows) {
  const at::NoGradGuard no_grad;
  engine::PlainWeights weights(model, at::kDouble, at::kCPU);
  const engine::Arch arch = engine::arch_of(model);
  return at::log_softmax(engine::logits(arch, weights, engine::hidden_states(arch, weights, windows)), -1);
}

TEST(Auto, JudgesByTheKlOnWindowsThatNobodySaw) {
  const ir::Model model = random_model({.hidden = 16, .blocks = 3, .kv = 2, .q = 2, .ffn = 32, .twin_channels = true});
  const at::Tensor windows = random_windows(model, 8, 13, 1);
  NarrowSettings settings{.widths = {.ffn = 16}, .repair = Repair::Dense};
  SilentEvents events;
  const std::vector<Tried> tried = try_criteria(model, windows, settings, {"random", "wanda", "obs"}, events);
  ASSERT_EQ(tried.size(), 3u);
  EXPECT_EQ(events.notes.size(), 3u);
  for (const Tried& t : tried) {
    settings.criterion = t.criterion;
    const ir::Model cut = ir::apply(narrow(model, windows.narrow(0, 0, 6), settings, events).plan, model);
    const at::Tensor judged = windows.narrow(0, 6, 2), p = log_probs(model, judged), q = log_probs(cut, judged);
    const at::Tensor kl = (p.exp() * (p - q)).sum(-1);                  // [2, 13]; positions 3, 7 and 11 are judged
    double want = 0;
    for (const std::int64_t position : {3, 7, 11}) want += kl.select(1, position).mean().item<double>() / 3;
    EXPECT_NEAR(t.kl, want, 1e-4 * want + 1e-7) << t.criterion;       // with twins, obs and a refit lose nothing but rounding
  }
  for (const Tried& t : tried) EXPECT_LE(winner(tried).kl, t.kl);
  EXPECT_NE(winner(tried).criterion, "random");
}

TEST(Auto, TriesOnlyWhatHasAFormulaAndTellsWhatItNeeds) {
  EXPECT_EQ(candidates({.ffn = 8}).size(), 5u);
  EXPECT_EQ(candidates({.hidden = 8}), (std::vector<std::string>{"minitron", "taylor-element1"}));
  const ir::Model model = random_model({});
  SilentEvents events;
  EXPECT_THROW(try_criteria(model, random_windows(model, 1, 9, 1), {.widths = {.ffn = 32}}, {"wanda"}, events), Error);
}

}  // namespace
}  // namespace slmc::pruning
