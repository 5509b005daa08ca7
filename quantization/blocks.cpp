#include "quantization/blocks.h"

#include <ATen/ops/empty.h>
#include <ATen/TensorOperators.h>

#include <algorithm>

#include "core/cancel.h"
#include "core/error.h"
#include "engine/moments.h"
#include "engine/solve.h"
#include "engine/stream.h"
#include "engine/tensors.h"

namespace slmc::quantization {
namespace {

// The maps of one step share their inputs, so one Gram matrix and one factor serve them.
class StepSolver {
 public:
  StepSolver(const ir::Model& model, const Schemes& schemes, const BlockSettings& settings, QuantizedBlocks& out)
      : model_(model), schemes_(schemes), settings_(settings), out_(out) {}

  void solve(const engine::BlockSteps& steps, engine::PlainWeights& weights) {
    std::vector<std::string> linears = steps.linears();
    std::erase_if(linears, [&](const std::string& name) { return !schemes_.contains(name) || stays(name); });
    if (linears.empty()) return;
    engine::GramSum sum(steps.inputs().size(1), steps.inputs().device());
    sum.add(steps.inputs());
    const at::Tensor gram = sum.mean();
    const GptqFactor factor = gptq_factor(gram, settings_.gptq, linears.front() + ".in");
    out_.dead += factor.dead;
    for (const std::string& name : linears) {
      if (factor.escalated) out_.escalated.push_back(name);
      weights.all()[name] = solve_one(name, weights.tensor(name), gram, factor).to(steps.inputs().device());
    }
  }

 private:
  // Weights that already have the scheme keep their codes.
  bool stays(const std::string& name) {
    const io::TensorData data = model_.read(name);
    if (!data.quantized || !(data.quantized->scheme == schemes_.at(name))) return false;
    out_.values.emplace(name, data);
    out_.error[name] = 0;
    return true;
  }

  // Gives the dequantized weights that the stream goes on through.
  at::Tensor solve_one(const std::string& name, const at::Tensor& weight, const at::Tensor& gram, const GptqFactor& factor) {
    const at::Tensor w = weight.to(at::kCPU, at::kFloat).contiguous();
    const Grid grid = search_grid(w, gram.diagonal(), schemes_.at(name), {.signed_scales = settings_.signed_scales});
    GptqResult result = gptq(w, factor, grid);
    const double size = engine::output_error(w, gram);
    out_.error[name] = size > 0 ? result.loss / size : 0;
    const io::TensorData data = io::TensorData::of({w.size(0), w.size(1)}, std::move(result.codes));
    out_.values.emplace(name, data);
    return engine::to_tensor(data, at::kFloat);
  }

  const ir::Model& model_;
  const Schemes& schemes_;
  const BlockSettings& settings_;
  QuantizedBlocks& out_;
};

}  // namespace

QuantizedBlocks quantize_blocks(const ir::Model& model, const at::Tensor& windows, const Schemes& schemes, const BlockSettings& settings,
                                stage::Events& events) {
  const engine::Arch arch = engine::arch_of(model);
  QuantizedBlocks out;
  at::Tensor x;
  {
    engine::PlainWeights outside = engine::load_block(model, -1, at::kFloat, settings.device, engine::Storage::Mapped);
    x = engine::embed_windows(arch, outside, windows, settings.device);
  }
  StepSolver solver(model, schemes, settings, out);
  for (std::int64_t i = 0; i < model.blocks(); ++i) {
    cancel_point("nothing was written");
    engine::PlainWeights weights = engine::load_block(model, i, at::kFloat, settings.device, engine::Storage::Mapped);
    for (engine::BlockSteps steps(arch, weights, i, x); !steps.done(); steps.next()) solver.solve(steps, weights);
    events.progress("blocks quantized", i + 1, model.blocks());
  }
  return out;
}

}  // namespace slmc::quantization
