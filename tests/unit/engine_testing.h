#pragma once
// What the engine's tests share: the device under test, the tiny checkpoints with their goldens, differences of tensors.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "core/rng.h"
#include "engine/decoder.h"
#include "engine/tensors.h"
#include "io/safetensors.h"
#include "ir/model.h"
#include "stage/job.h"

namespace slmc::engine {

at::Device test_device();                          // engine_main.cpp: SLMC_TEST_DEVICE, or the CPU

struct Tiny {
  std::string name;                                // "llama_tied"
  ir::Model model;
  Loaded loaded;                                   // fp64
  io::SafetensorsFile golden;
  at::Tensor of(const std::string& key) const { return to_tensor(golden.read(key), std::nullopt).to(test_device()); }
};

inline std::filesystem::path tiny_folder() { return std::filesystem::path(SLMC_SOURCE_DIR) / "tests/data/tiny"; }

// Every tiny checkpoint that the folder holds.
inline std::vector<std::string> tiny_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(tiny_folder())) {
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

inline Tiny tiny(const std::string& name) {
  const ir::Model model = ir::load((tiny_folder() / name).string());
  return {name, model, load(model, at::kDouble, test_device(), Storage::Owned),
          io::SafetensorsFile::open(tiny_folder() / (name + ".golden.safetensors"))};
}

inline double difference(const at::Tensor& a, const at::Tensor& b) {
  EXPECT_EQ(a.sizes(), b.sizes());
  return a.numel() == 0 ? 0 : (a.to(at::kCPU, at::kDouble) - b.to(at::kCPU, at::kDouble)).abs().max().item<double>();
}

inline bool same_bits(const at::Tensor& a, const at::Tensor& b) { return a.defined() == b.defined() && (!a.defined() || a.equal(b)); }

inline std::int64_t blocks_of(const Arch& arch) { return static_cast<std::int64_t>(arch.sizes.blocks.size()); }

// [B, T, vocab] of a whole pass.
inline at::Tensor all_logits(Loaded& model, const at::Tensor& ids, const Pass& pass = {}) {
  return logits(model.arch, model.weights, hidden_states(model.arch, model.weights, ids, pass), pass);
}

// Normally distributed values, a pure function of the seed.
inline at::Tensor random_tensor(at::IntArrayRef shape, std::uint64_t seed) {
  std::int64_t n = 1;
  for (const std::int64_t s : shape) n *= s;
  std::vector<double> values(static_cast<std::size_t>(n));
  const Rng rng(seed);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = rng.normal(i);
  return at::tensor(values).view(shape).to(test_device());
}

inline at::Tensor random_ids(at::IntArrayRef shape, std::int64_t bound, std::uint64_t seed) {
  std::int64_t n = 1;
  for (const std::int64_t s : shape) n *= s;
  std::vector<std::int64_t> values(static_cast<std::size_t>(n));
  const Rng rng(seed);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(bound), i));
  return at::tensor(values).view(shape).to(test_device());
}

// Keeps what is emitted.
class Kept : public stage::Events {
 public:
  void emit(const Json& event) override;           // engine_main.cpp
  std::vector<std::string> lines;
};

}  // namespace slmc::engine
