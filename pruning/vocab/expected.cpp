#include "pruning/vocab/expected.h"

#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/cancel.h"
#include "core/error.h"
#include "engine/stream.h"

namespace slmc::pruning {
namespace {

constexpr std::int64_t kWindows = 8;               // in memory together
constexpr std::int64_t kRows = 64;                 // positions whose logits are, per thread

// [vocab] fp64 of one window's stream behind the last block, [1, seq, hidden].
at::Tensor window_sum(engine::Loaded& model, const at::Tensor& x) {
  const at::Tensor normed = engine::final_norm(model.arch, model.weights, x)[0];
  at::Tensor sum = at::zeros({model.arch.sizes.vocab}, x.options().dtype(at::kDouble));
  for (std::int64_t first = 0; first < normed.size(0); first += kRows) {
    const at::Tensor rows = normed.narrow(0, first, std::min(kRows, normed.size(0) - first));
    sum += at::softmax(engine::logits(model.arch, model.weights, rows), -1).sum(0, false, at::kDouble);
  }
  return sum.cpu();
}

}  // namespace

std::vector<double> expected_counts(const ir::Model& model, const at::Tensor& windows, at::Device device, stage::Events& events) {
  engine::Loaded loaded = engine::load(model, at::kFloat, device);
  const std::int64_t n = windows.size(0), blocks = model.blocks(), vocab = model.sizes().vocab;
  std::vector<double> out(static_cast<std::size_t>(vocab));
  for (std::int64_t first = 0; first < n; first += kWindows) {
    cancel_point("nothing was written");
    const at::Tensor ids = windows.narrow(0, first, std::min(kWindows, n - first)).contiguous();
    at::Tensor x = engine::embed_windows(loaded.arch, loaded.weights, ids, device);
    engine::run_windows(loaded.arch, loaded.weights, x, 0, blocks);
    std::vector<at::Tensor> sums(static_cast<std::size_t>(ids.size(0)));
    engine::for_windows(ids.size(0), device, [&](std::int64_t i) { sums[static_cast<std::size_t>(i)] = window_sum(loaded, x.narrow(0, i, 1)); });
    for (const at::Tensor& sum : sums) {
      for (std::int64_t v = 0; v < vocab; ++v) out[static_cast<std::size_t>(v)] += sum.const_data_ptr<double>()[v];
    }
    for (std::int64_t i = 0; i < ids.numel(); ++i) ++out[static_cast<std::size_t>(ids.const_data_ptr<std::int64_t>()[i])];
    events.progress("windows read", first + ids.size(0), n);
  }
  if (!std::isfinite(std::accumulate(out.begin(), out.end(), 0.0))) {
    throw Error(ErrorKind::Numeric, "the model's probabilities must be finite, but are not on the calibration text", "look for NaN in its weights, or take keep: count");
  }
  return out;
}

}  // namespace slmc::pruning
