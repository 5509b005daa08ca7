#include "quantization/quantize.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/cancel.h"
#include "core/error.h"
#include "engine/tensors.h"
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

QuantizedBlocks solve(engine::OpContext& context, const Schemes& schemes, bool signed_scales) {
  const stage::Settings& settings = context.job.settings;
  const at::Tensor windows = context.windows("calib");
  const std::int64_t count = std::min(settings.integer("windows"), windows.size(0));
  return quantize_blocks(context.model(), windows.narrow(0, 0, count), schemes,
                         {.gptq = {.damping = settings.number("damping"), .order = settings.boolean("order")},
                          .signed_scales = signed_scales,
                          .device = context.device},
                         context.events);
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
    QuantizedBlocks blocks = solve(context, schemes, true);
    result["gptq"] = report(blocks, context);
    solved = with_values(model, std::move(blocks.values));
  }
  ir::write_gguf(solved, context.job.out, format, context.writing());
  return result;
}

// 16-bit floats of the kind that the model comes in; F16 when it comes in neither.
DType packed_dtype(const stage::Settings& settings, const ir::Model& model) {
  if (!settings.is_auto("embedding")) {
    const std::string& name = settings.text("embedding");
    if (name == "f32") return DType::F32;
    if (name == "bf16") return DType::BF16;
    if (name == "f16") return DType::F16;
    throw Error(ErrorKind::Recipe, "the embedding of a packed folder must be f16, bf16 or f32, but is " + name);
  }
  const ir::TensorSpec* embed = model.find("embed");
  return embed && embed->stored_dtype == "BF16" ? DType::BF16 : DType::F16;
}

io::QuantScheme packed_scheme(engine::OpContext& context, DType dtype) {
  const stage::Settings& settings = context.job.settings;
  io::QuantScheme scheme{.bits = settings.text("bits") == "8" ? 8 : 4, .zero = settings.boolean("symmetric") ? io::QuantScheme::Zero::Symmetric : io::QuantScheme::Zero::ZeroPoint,
                         .scale_dtype = dtype};
  std::vector<std::int64_t> widths;
  for (const ir::TensorSpec& spec : context.model().tensors()) {
    if (is_block_matrix(spec)) widths.push_back(spec.shape[1]);
  }
  scheme.group = settings.is_auto("group") ? largest_group(widths) : settings.integer("group");
  for (const ir::TensorSpec& spec : context.model().tensors()) {
    if (is_block_matrix(spec)) require_group(scheme, spec.shape[1], spec.name);
  }
  return scheme;
}

// Round to nearest by the reference fit of compressed-tensors.
std::map<std::string, io::TensorData> round_all(engine::OpContext& context, const Schemes& schemes) {
  std::map<std::string, io::TensorData> out;
  for (const auto& [name, scheme] : schemes) {
    cancel_point("nothing was written");
    const at::Tensor w = engine::to_tensor(context.model().read(name));
    out.emplace(name, io::TensorData::of({w.size(0), w.size(1)}, round_to(range_grid(w, scheme), w)));
  }
  return out;
}

Json quantize_to_packed(engine::OpContext& context) {
  const ir::Model& model = context.model();
  const stage::Settings& settings = context.job.settings;
  ir::require_packable(model);
  const DType dtype = packed_dtype(settings, model);
  const io::QuantScheme scheme = packed_scheme(context, dtype);
  Schemes schemes;
  for (const ir::TensorSpec& spec : model.tensors()) {
    if (is_block_matrix(spec)) schemes.emplace(spec.name, scheme);
  }
  Json result = {{"method", settings.text("method")}, {"bits", scheme.bits}, {"group", scheme.group}, {"symmetric", settings.boolean("symmetric")}};
  std::map<std::string, io::TensorData> values;
  if (settings.text("method") == "gptq") {
    QuantizedBlocks blocks = solve(context, schemes, false);
    result["gptq"] = report(blocks, context);
    values = std::move(blocks.values);
  } else {
    values = round_all(context, schemes);
  }
  ir::write_packed(with_values(model, std::move(values)), context.job.out, dtype, context.writing());
  return result;
}

Json run_quantize(engine::OpContext& context) {
  return context.job.settings.text("to") == "packed" ? quantize_to_packed(context) : quantize_to_gguf(context);
}

}  // namespace

void add_ops(engine::Ops& ops) { engine::add_op(ops, quantize_info(), run_quantize); }

}  // namespace slmc::quantization
