#include "quantization/quantize.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/cancel.h"
#include "core/error.h"
#include "io/ggml_types.h"
#include "ir/cost.h"
#include "ir/plan.h"
#include "ir/write.h"
#include "quantization/blocks.h"
#include "quantization/quantize_info.h"

namespace slmc::quantization {
namespace {

using Format = std::vector<std::pair<std::string, std::string>>;

bool is_embedding(const std::string& name) { return name == "embed" || name == "head"; }

bool is_block_matrix(const ir::TensorSpec& spec) { return spec.block >= 0 && spec.shape.size() == 2 && !spec.derived; }

// Stored type of every tensor of the GGUF. Notes which matrices fall back, and why.
std::map<std::string, std::string> gguf_types(engine::OpContext& context) {
  const stage::Settings& settings = context.job.settings;
  const std::string& type = settings.text("type");
  std::map<std::string, std::string> types = ir::gguf_types(context.model(), type);
  std::int64_t fallen = 0;
  for (const ir::TensorSpec& spec : context.model().tensors()) {
    if (is_embedding(spec.name) && !settings.is_auto("embedding")) types[spec.name] = settings.text("embedding");
    fallen += is_block_matrix(spec) && types.at(spec.name) != type;
  }
  if (fallen) context.events.note(fmt::format("{} matrices have rows that are no multiple of {}'s block and stay in 16 bits", fallen, type));
  return types;
}

Json report(const QuantizedBlocks& blocks, engine::OpContext& context) {
  double sum = 0, worst = 0;
  std::string at;
  for (const auto& [name, error] : blocks.error) {
    sum += error;
    if (error > worst) worst = error, at = name;
  }
  if (!blocks.escalated.empty()) {
    context.events.note(fmt::format("the Gram matrix of {} maps needed more damping than {}, {} first: more calibration text may help",
                                    blocks.escalated.size(), context.job.settings.number("damping"), blocks.escalated.front()));
  }
  if (blocks.dead) context.events.note(fmt::format("{} inputs were zero in every calibration window; their weights are rounded to nearest", blocks.dead));
  const double count = std::max<double>(1, static_cast<double>(blocks.error.size()));
  return {{"matrices", blocks.error.size()}, {"mean_error", sum / count}, {"worst_error", worst}, {"worst", at}, {"dead_inputs", blocks.dead}};
}

// The model with the solved codes in place of the weights.
ir::Model with_values(const ir::Model& model, std::map<std::string, io::TensorData> values) {
  ir::Plan plan(model);
  for (auto& [name, data] : values) plan.set[name].value = std::move(data);
  return ir::apply(plan, model);
}

Json quantize_to_gguf(engine::OpContext& context) {
  const ir::Model& model = context.model();
  const stage::Settings& settings = context.job.settings;
  const auto types = gguf_types(context);
  const Format format(types.begin(), types.end());
  Json result = {{"method", settings.text("method")}, {"type", settings.text("type")}};
  ir::Model solved = model;
  if (settings.text("method") == "gptq") {
    Schemes schemes;
    for (const ir::TensorSpec& spec : model.tensors()) {
      if (!is_block_matrix(spec)) continue;
      const auto scheme = io::scheme_of(io::ggml_type(std::string_view(types.at(spec.name)))->type);
      if (scheme) schemes.emplace(spec.name, *scheme);
    }
    const BlockSettings how = {.gptq = {.damping = settings.number("damping"), .order = settings.boolean("order")}, .device = context.device};
    QuantizedBlocks blocks = quantize_blocks(model, context.windows("calib"), schemes, how, context.events);
    result["gptq"] = report(blocks, context);
    solved = with_values(model, std::move(blocks.values));
  }
  ir::write_gguf(solved, context.job.out, format, {[&](std::int64_t done, std::int64_t all) {
    cancel_point("nothing was written");
    context.events.progress("bytes written", done, all);
  }});
  result["bytes"] = ir::gguf_bytes(solved, format);
  return result;
}

Json run_quantize(engine::OpContext& context) { return quantize_to_gguf(context); }

}  // namespace

void add_ops(engine::Ops& ops) { engine::add_op(ops, quantize_info(), run_quantize); }

}  // namespace slmc::quantization
