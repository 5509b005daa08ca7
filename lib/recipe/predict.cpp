// Time and memory of a stage before it runs. Rough on purpose: FLOPs over a rate that a core of today reaches, and the few
// buffers that are large. The quickstart's stages, predicted and measured: 1.7 and 1.1 GB (drop), 1.2 and 1.0, 3.8 and 3.1, 0.48 and 0.45.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "ir/cost.h"
#include "recipe/walk.h"

namespace slmc::recipe {
namespace {

constexpr double kFlopsPerCore = 150e9;          // fp32, AVX2 or better
constexpr double kProgram = 150e6, kFront = 10e6;      // bytes of the engine with LibTorch, and of slmc itself
constexpr double kMicroTokens = 2048;            // of one forward and backward pass, unless `micro_batch` is given

struct Shape {
  double parameters = 0, hidden = 0, ffn = 0, blocks = 0, flops_per_token = 0;
};

Shape shape_of(const ir::Model& model) {
  const ir::Cost cost = ir::cost(model);
  double ffn = 0;
  for (const ir::BlockSizes& b : model.sizes().blocks) ffn = std::max(ffn, static_cast<double>(b.ffn));
  return {static_cast<double>(cost.parameters), static_cast<double>(model.sizes().hidden), ffn,
          static_cast<double>(model.blocks()), cost.flops_per_token};
}

double section_number(const Recipe& recipe, const char* section, const char* key, double usual) {
  const auto it = recipe.data.find(section);
  return it == recipe.data.end() || !it->second.spec ? usual : it->second.spec->value(key, usual);
}

// Passes over calibration text, block by block: what goes into a block and out of it, and the inputs of its widest map.
void add_calibration(const Shape& shape, const StageEntry& entry, const Recipe& recipe, const stage::Needs& needs,
                     double& bytes, double& flops) {
  double windows = section_number(recipe, "calib", "samples", 128);
  if (given(entry, "windows")) windows = std::min(windows, entry.settings.number("windows"));
  const double tokens = windows * section_number(recipe, "calib", "seq", 512);
  flops += needs.passes * shape.flops_per_token * tokens;
  bytes += 4 * tokens * (2 * shape.hidden + 1.5 * shape.ffn) + 8 * shape.ffn * shape.ffn;
}

// Weights, gradients and two moments, the last three of adapters only where there are such; what backward needs of one micro-batch; a frozen teacher of its own size, which runs forward only.
void add_training(const Shape& shape, const ir::Model* teacher, const StageEntry& entry, const Recipe& recipe, double& bytes,
                  double& flops) {
  const double seq = section_number(recipe, "train", "seq", 512);
  const bool pieces = given(entry, "objective") && entry.settings.text("objective") == "classify";      // as many as the text has classes
  const double tokens = given(entry, "tokens") && !pieces ? entry.settings.number("tokens") : 0;
  const double micro = given(entry, "micro_batch") ? entry.settings.number("micro_batch") * seq : std::max(kMicroTokens, seq);
  const bool recompute = given(entry, "recompute") && entry.settings.boolean("recompute");
  const double kept = recompute ? shape.hidden : 6 * shape.hidden + 2 * shape.ffn;       // numbers per token and block
  flops += 3 * shape.flops_per_token * tokens;
  bytes += (given(entry, "lora") ? 4.5 : 16.0) * shape.parameters + 4 * micro * shape.blocks * kept;
  if (!teacher) return;
  const Shape of_teacher = shape_of(*teacher);
  flops += of_teacher.flops_per_token * tokens;
  bytes += 4 * of_teacher.parameters;
}

}  // namespace

void predict(const Walk& before, const StageEntry& entry, const Recipe& recipe, const ir::Model* teacher, int threads,
             StageForecast& out) {
  const stage::Needs needs = stage::needs_of(*entry.info, entry.settings);
  const Shape shape = shape_of(before.model);
  double bytes = 4 * shape.hidden * static_cast<double>(before.model.sizes().vocab), flops = 0;     // the largest tensor
  bytes += needs.engine ? kProgram : kFront;
  if (needs.whole) bytes += 4 * shape.parameters;
  if (needs.calib) add_calibration(shape, entry, recipe, needs, bytes, flops);
  if (entry.info->trains) add_training(shape, teacher, entry, recipe, bytes, flops);
  out.peak_bytes = static_cast<std::uint64_t>(bytes);
  out.seconds = flops / (kFlopsPerCore * std::max(threads, 1));
}

}  // namespace slmc::recipe
