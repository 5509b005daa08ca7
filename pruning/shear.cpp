// The stage `shear`: settings in shear_info.cpp, masks in masks/masks.h, what is trained for in masks/shear_task.h.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "engine/tensors.h"
#include "engine/train/training.h"
#include "io/safetensors.h"
#include "ir/cost.h"
#include "ir/plan.h"
#include "ir/write.h"
#include "pruning/masks/hard_concrete.h"
#include "pruning/masks/shear_task.h"
#include "pruning/ops.h"
#include "pruning/shear_info.h"

namespace slmc::pruning {
namespace {

constexpr double kSettledShare = 0.02;      // of a mask's entries that the expected size may be off before the stage says so

std::optional<std::int64_t> size(const stage::Settings& settings, const char* name) {
  return settings.has(name) ? std::optional(settings.integer(name)) : std::nullopt;
}

// OUT/masks/masks.safetensors: log alpha under the gate's name, the settled mask under NAME.z. In a folder of its own, because some
// readers take every .safetensors file beside the weights for weights.
void write_masks(const std::filesystem::path& out, const Masks& masks) {
  std::map<std::string, at::Tensor> tensors;
  for (const Mask& m : masks.all()) tensors[m.gate] = m.log_alpha.detach().to(at::kCPU, at::kFloat).contiguous();
  for (const auto& [gate, z] : masks.settled().of) tensors[gate + ".z"] = z.to(at::kCPU, at::kFloat).contiguous();
  std::vector<io::SafetensorsWriter::Entry> entries;
  for (const auto& [name, t] : tensors) entries.push_back({name, DType::F32, t.sizes().vec()});
  std::filesystem::create_directories(out / "masks");
  io::SafetensorsWriter writer = io::SafetensorsWriter::single(out / "masks" / "masks.safetensors", std::move(entries));
  for (const auto& [name, t] : tensors) writer.write(name, {static_cast<const std::byte*>(t.const_data_ptr()), t.nbytes()});
  writer.finish();
}

// {"ffn": {"keep", "of", "expected", "gap", "lambda", "phi"}}: means over the constraints of a kind; gap is the largest.
Json report(const Masks& masks, stage::Events& events) {
  Json out = Json::object();
  for (const std::string& kind : masks.kinds()) {
    const auto mask = std::find_if(masks.all().begin(), masks.all().end(), [&](const Mask& m) { return m.kind == kind; });
    const KindState s = state_of(masks, kind, 1);
    const double of = static_cast<double>(mask->log_alpha.size(-1)), expected = of * (1 - s.sparsity);
    out[kind] = {{"keep", mask->keep}, {"of", mask->log_alpha.size(-1)}, {"expected", expected}, {"gap", s.gap}, {"lambda", s.lambda}, {"phi", s.phi}};
    events.note(fmt::format("{}: the masks expect {:.1f} of {:.0f}, {} stay", kind, expected, of, mask->keep));
    if (s.gap > std::max(1.0, kSettledShare * of)) {
      events.warning(fmt::format("the masks of {} have not settled: one expects {:.1f} entries more or less than the {} that stay; give more tokens", kind,
                                 s.gap, mask->keep));
    }
  }
  return out;
}

Json run_shear(engine::OpContext& context) {
  const stage::Settings& s = context.job.settings;
  const ir::Model& model = context.model();
  if (!s.is_auto("lr") && s.number("lr") <= 0) throw Error(ErrorKind::Recipe, "lr must be above 0, but is 0", "freeze: '*' keeps the weights as they are");
  const Target target{size(s, "hidden"), size(s, "blocks"), size(s, "kv"), size(s, "heads"), size(s, "ffn")};
  Masks masks(model.sizes(), target, context.job.seed, at::kFloat, context.device);
  const ir::Plan shape = masks.plan(model);
  ir::require_ok(ir::check(shape, model), "hf");
  engine::TrainingJob job{.base = model};
  job.parameters = ir::cost(ir::apply(shape, model)).parameters;
  job.removed = 1 - static_cast<double>(job.parameters) / static_cast<double>(ir::cost(model).parameters);
  job.gates = [&] { return masks.settled(); };
  job.task = [&](engine::ModelRef loaded) { return std::make_unique<Shear>(loaded, masks, s.number("ramp"), s.boolean("recompute")); };
  job.own = [&](double peak) { return masks.groups(s.number("mask_lr") / peak, s.number("multiplier_lr") / peak); };
  job.write = [&](const ir::Model& trained, DType type) {
    ir::write_hf(ir::apply(masks.plan(trained), trained), context.job.out, type, context.writing());
    write_masks(context.job.out, masks);
  };
  Json out = engine::train_and_write(context, job);
  out["masks"] = report(masks, context.events);
  return out;
}

}  // namespace

void add_shear(engine::Ops& ops) { engine::add_op(ops, shear_info(), run_shear); }

}  // namespace slmc::pruning
