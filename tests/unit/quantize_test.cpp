// The stage `quantize` on small models: solved codes are the file's codes, later maps feel earlier ones, and the claim against rounding.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "engine/decoder.h"
#include "io/gguf.h"
#include "ir/plan.h"
#include "ir/write.h"
#include "methods_testing.h"
#include "quantization/blocks.h"
#include "quantization/quantize.h"
#include "quantization/quantize_info.h"
#include "test_folder.h"

namespace slmc::quantization {
namespace {

using testing_methods::random_model;
using testing_methods::random_windows;
using testing_methods::SilentEvents;

constexpr io::QuantScheme kQ40{.bits = 4, .group = 32};

Schemes all_matrices(const ir::Model& model, const io::QuantScheme& scheme) {
  Schemes out;
  for (const ir::TensorSpec& spec : model.tensors()) {
    if (spec.block >= 0 && spec.shape.size() == 2 && !spec.derived) out.emplace(spec.name, scheme);
  }
  return out;
}

ir::Model with(const ir::Model& model, const QuantizedBlocks& blocks) {
  ir::Plan plan(model);
  for (const auto& [name, value] : blocks.values) plan.set[name].value = value;
  return ir::apply(plan, model);
}

ir::Model small() { return random_model({.hidden = 64, .blocks = 3, .kv = 2, .q = 2, .head = 16, .ffn = 96}); }

double distance(const ir::Model& a, const ir::Model& b, const at::Tensor& windows) {
  const at::NoGradGuard no_grad;
  engine::PlainWeights wa(a, at::kDouble, at::kCPU), wb(b, at::kDouble, at::kCPU);
  const at::Tensor x = engine::hidden_states(engine::arch_of(a), wa, windows), y = engine::hidden_states(engine::arch_of(b), wb, windows);
  return (x - y).square().mean().item<double>();
}

TEST(QuantizeBlocks, EveryMapGetsCodesAndAnError) {
  const ir::Model model = small();
  SilentEvents events;
  const QuantizedBlocks blocks = quantize_blocks(model, random_windows(model, 20, 16, 1), all_matrices(model, kQ40), {}, events);
  EXPECT_EQ(blocks.values.size(), 3u * 7);
  for (const auto& [name, value] : blocks.values) {
    ASSERT_TRUE(value.quantized) << name;
    EXPECT_EQ(value.shape, model.find(name)->shape);
    EXPECT_GT(blocks.error.at(name), 0);
    EXPECT_LT(blocks.error.at(name), 0.05) << name;
  }
}

TEST(QuantizeBlocks, BeatsRoundingToNearestOnOtherText) {
  const ir::Model model = small();
  SilentEvents events;
  const QuantizedBlocks solved = quantize_blocks(model, random_windows(model, 60, 16, 1), all_matrices(model, kQ40), {}, events);
  ir::Plan rounding(model);
  for (const auto& [name, value] : solved.values) {
    const io::TensorData data = model.read(name);
    std::vector<std::byte> bytes(static_cast<std::size_t>(data.count() / 32 * 18));
    io::quantize_reference(io::GgmlType::Q4_0, data.to_floats(), bytes);
    rounding.set[name].value = io::TensorData::of(data.shape, io::unpack_blocks(io::GgmlType::Q4_0, bytes));
  }
  const at::Tensor others = random_windows(model, 30, 16, 2);
  EXPECT_LT(distance(model, with(model, solved), others), 0.6 * distance(model, ir::apply(rounding, model), others));
}

TEST(QuantizeBlocks, LaterMapsAreSolvedOnWhatEarlierQuantizedMapsGive) {
  // If only v is named, o sees other inputs than in the whole model; codes of `down` must change when `v` is quantized before it.
  const ir::Model model = small();
  const at::Tensor windows = random_windows(model, 20, 16, 1);
  SilentEvents events;
  const io::QuantScheme coarse{.bits = 2, .group = 32};
  const QuantizedBlocks alone = quantize_blocks(model, windows, {{"block.0.ffn.down", kQ40}}, {}, events);
  const QuantizedBlocks after = quantize_blocks(model, windows, {{"block.0.attn.v", coarse}, {"block.0.ffn.down", kQ40}}, {}, events);
  EXPECT_FALSE(*alone.values.at("block.0.ffn.down").quantized == *after.values.at("block.0.ffn.down").quantized);
}

TEST(QuantizeBlocks, WeightsInTheSchemeStayCodeForCode) {
  const ir::Model model = small();
  SilentEvents events;
  const at::Tensor windows = random_windows(model, 20, 16, 1);
  const QuantizedBlocks once = quantize_blocks(model, windows, all_matrices(model, kQ40), {}, events);
  const QuantizedBlocks twice = quantize_blocks(with(model, once), windows, all_matrices(model, kQ40), {}, events);
  for (const auto& [name, value] : twice.values) EXPECT_TRUE(*value.quantized == *once.values.at(name).quantized) << name;
}

TEST(QuantizeBlocks, SameBytesForOneTwoAndThreeThreads) {
  const ir::Model model = small();
  const at::Tensor windows = random_windows(model, 19, 16, 1);
  SilentEvents events;
  std::optional<QuantizedBlocks> first;
  for (const int threads : {1, 2, 3}) {
    at::set_num_threads(threads);
    const QuantizedBlocks now = quantize_blocks(model, windows, all_matrices(model, kQ40), {}, events);
    if (!first) first = now;
    for (const auto& [name, value] : now.values) EXPECT_TRUE(*value.quantized == *first->values.at(name).quantized) << name << " " << threads;
    EXPECT_EQ(now.error, first->error);
  }
  at::set_num_threads(1);
}

}  // namespace
}  // namespace slmc::quantization
