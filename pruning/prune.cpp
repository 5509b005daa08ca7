// The stage `prune`: settings in prune_info.cpp, the walk in width/narrow.h.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/cancel.h"
#include "core/error.h"
#include "ir/cost.h"
#include "ir/vocabulary.h"
#include "ir/write.h"
#include "pruning/ops.h"
#include "pruning/prune_info.h"
#include "pruning/vocab/keep.h"
#include "pruning/width/aggregate.h"
#include "pruning/width/auto.h"
#include "pruning/width/narrow.h"

namespace slmc::pruning {
namespace {

constexpr std::int64_t kUsualBlock = 32;             // of q4_0 ... q8_0; what `align: auto` means without a later stage

std::optional<std::int64_t> width(const stage::Settings& settings, const char* name) {
  return settings.has(name) ? std::optional(settings.integer(name)) : std::nullopt;
}

Json report(const std::vector<RefittedMap>& maps, const char* which, stage::Events& events) {
  double cut = 0, refitted = 0;
  std::int64_t helped = 0;
  for (const RefittedMap& m : maps) {
    cut += m.cut, refitted += m.refitted;
    helped += m.refitted < m.cut;
  }
  const double count = std::max<double>(1, static_cast<double>(maps.size()));
  if (const auto not_helped = static_cast<std::int64_t>(maps.size()) - helped; not_helped > 0) {
    events.note(std::string(which) + " did not help on held-out windows in " + std::to_string(not_helped) + " of " + std::to_string(maps.size()) +
                " maps; those stay as they were");
  }
  return {{"maps", maps.size()}, {"error_before", cut / count}, {"error_refitted", refitted / count}};
}

// The vocabulary's part of the plan. Counts read every calibration document, not only the windows that are drawn from them.
std::vector<std::int64_t> kept_tokens(engine::OpContext& context) {
  const stage::Settings& settings = context.job.settings;
  const ir::Model& model = context.model();
  if (settings.text("keep") == "rank") return ir::first_tokens(model, settings.integer("vocab"));
  if (!model.tokenizer()) throw Error(ErrorKind::Model, "the model must have a tokenizer to count its tokens, but has none", "take keep: rank");
  const data::DataSpec calib = data::data_spec_from_json(context.job.data->at("calib"), "the job", "data.calib");
  return ir::closed_vocabulary(model, by_count(token_counts(*model.tokenizer(), calib, model.sizes().vocab)), settings.integer("vocab"));
}

NarrowSettings how(const engine::OpContext& context) {
  const stage::Settings& settings = context.job.settings;
  const bool merges = settings.has("kv") && settings.text("kv_mode") == "merge";
  return {.widths = {.ffn = width(settings, "ffn"), .kv = merges ? std::nullopt : width(settings, "kv"), .heads = width(settings, "heads"), .hidden = width(settings, "hidden")},
          .criterion = settings.text("criterion"), .aggregate = aggregate_from(settings.text("aggregate")),
          .repair = repair_from(settings.text("refit")), .merge = merges ? width(settings, "kv") : std::nullopt, .stability = settings.integer("stability"),
          .seed = context.job.seed, .device = context.device, .cache = context.job.cache};
}

Json to_json(const std::vector<Tried>& tried) {
  Json out = Json::array();
  for (const Tried& t : tried) out.push_back({{"criterion", t.criterion}, {"kl", t.kl}});
  return out;
}

// One line for each kind of axis.
Json told(const Json& stability, stage::Events& events) {
  for (const auto& [kind, a] : stability.items()) {
    if (!a.is_object()) continue;
    events.note(fmt::format("{}, decided again on {} resamples of the text: what stays agrees by {:.3f} (Jaccard), what goes by {:.3f}; least in {}, {:.3f}",
                            kind, stability["resamples"].get<std::int64_t>(), a["kept"].get<double>(), a["removed"].get<double>(),
                            a["least_at"].get<std::string>(), a["least_kept"].get<double>()));
  }
  return stability;
}

// In a folder of its own: what is solved again is no weight file of the result.
void write_plan_beside(const std::filesystem::path& model, const ir::Plan& plan) {
  std::filesystem::create_directories(model / "plan");
  ir::write_plan(model / "plan", plan);
}

void write(engine::OpContext& context, const ir::Model& result, const ir::Plan& plan) {
  const DType type = ir::common_dtype(context.model());
  if (context.job.settings.text("to") == "gguf") return ir::write_gguf(result, context.job.out, {{"*", std::string(to_string(type))}}, context.writing());
  ir::write_hf(result, context.job.out, type, context.writing());
  write_plan_beside(context.job.out, plan);
}

bool narrows_blocks(const Widths& widths) { return widths.ffn || widths.kv || widths.heads || widths.hidden; }

Json run_prune(engine::OpContext& context) {
  const stage::Settings& settings = context.job.settings;
  NarrowSettings wanted = how(context);
  const ir::Model& model = context.model();
  Narrowed narrowed{.plan = ir::Plan(model)};
  std::vector<Tried> tried;
  const bool narrower = narrows_blocks(wanted.widths) || wanted.merge;
  if (narrower) {
    if (narrows_blocks(wanted.widths)) require_widths(model.sizes(), wanted.widths, settings.is_auto("align") ? kUsualBlock : settings.integer("align"));
    if (wanted.criterion == "auto") {
      tried = try_criteria(model, context.windows("calib"), wanted, candidates(wanted.widths), context.events);
      wanted.criterion = winner(tried).criterion;
      context.events.note("criterion auto: " + wanted.criterion + " is taken");
    }
    require_possible(model, wanted);
    narrowed = narrow(model, needs_text(wanted) ? context.windows("calib") : at::Tensor(), wanted, context.events);
  }
  if (settings.has("vocab")) narrowed.plan.take["vocab"] = kept_tokens(context);
  const ir::Model result = ir::apply(narrowed.plan, model);
  write(context, result, narrowed.plan);
  Json out = Json::object();
  if (narrower) out["criterion"] = wanted.criterion;
  if (!tried.empty()) out["tried"] = to_json(tried);
  if (settings.has("vocab")) out["keep"] = settings.text("keep");
  if (narrowed.stability) out["stability"] = told(*narrowed.stability, context.events);
  if (!narrowed.maps.empty()) out["refit"] = report(narrowed.maps, "the refit", context.events);
  if (!narrowed.sequence.empty()) out["refit_in_sequence"] = report(narrowed.sequence, "the refit in sequence", context.events);
  return out;
}

}  // namespace

void add_prune(engine::Ops& ops) { engine::add_op(ops, prune_info(), run_prune); }

}  // namespace slmc::pruning
