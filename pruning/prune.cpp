// The stage `prune`: settings in prune_info.cpp, the walk in width/narrow.h.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/cancel.h"
#include "core/error.h"
#include "ir/cost.h"
#include "ir/target.h"
#include "ir/vocabulary.h"
#include "ir/write.h"
#include "pruning/ops.h"
#include "pruning/planner/per_layer.h"
#include "pruning/planner/shapes.h"
#include "pruning/prune_info.h"
#include "pruning/vocab/expected.h"
#include "pruning/vocab/keep.h"
#include "pruning/width/aggregate.h"
#include "pruning/width/auto.h"
#include "pruning/width/narrow.h"

namespace slmc::pruning {
namespace {

constexpr std::int64_t kUsualBlock = 32;             // of q4_0 ... q8_0; what `align: auto` means without a later stage

std::optional<std::int64_t> width(const stage::Settings& settings, const char* name) {
  return settings.has(name) && !settings.is_auto(name) ? std::optional(settings.integer(name)) : std::nullopt;
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

// The vocabulary's part of the plan. `count` reads every calibration document, `expected` the windows that are drawn from them.
std::vector<std::int64_t> kept_tokens(engine::OpContext& context) {
  const stage::Settings& settings = context.job.settings;
  const ir::Model& model = context.model();
  if (settings.text("keep") == "rank") return ir::first_tokens(model, settings.integer("vocab"));
  if (settings.text("keep") == "expected") {
    const std::vector<double> expected = expected_counts(model, context.windows("calib"), context.device, context.events);
    return ir::closed_vocabulary(model, by_worth(expected), settings.integer("vocab"));
  }
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

ir::Meter meter_of(const stage::Settings& settings) {
  ir::Meter out;
  if (settings.has("file_type") && !settings.is_auto("file_type")) out.file_type = settings.text("file_type");
  if (settings.has("latency_table")) out.latency = ir::read_latency_table(settings.text("latency_table"));
  return out;
}

std::vector<ir::Target> targets_of(const stage::Settings& settings, const ir::Model& model, const ir::Meter& meter) {
  std::vector<ir::Target> out;
  for (const auto& [name, measure] : ir::target_settings()) {
    if (settings.has(name)) out.push_back(ir::target_from(name, settings.text(name), model, meter));
  }
  return out;
}

class Prune {
 public:
  explicit Prune(engine::OpContext& context)
      : context_(context), settings_(context.job.settings), model_(context.model()), wanted_(how(context)),
        align_(settings_.is_auto("align") ? kUsualBlock : settings_.has("align") ? settings_.integer("align") : 1) {}

  Json run() {
    Narrowed narrowed{.plan = ir::Plan(model_)};
    choose_widths();
    if (narrows_blocks(wanted_.widths) || wanted_.merge) narrowed = narrow_blocks();
    if (settings_.has("vocab")) {
      narrowed.plan.take["vocab"] = kept_tokens(context_);
      out_["keep"] = settings_.text("keep");
    }
    if (narrowed.stability) out_["stability"] = told(*narrowed.stability, context_.events);
    if (!narrowed.maps.empty()) out_["refit"] = report(narrowed.maps, "the refit", context_.events);
    if (!narrowed.sequence.empty()) out_["refit_in_sequence"] = report(narrowed.sequence, "the refit in sequence", context_.events);
    write(context_, ir::apply(narrowed.plan, model_), narrowed.plan);
    return std::move(out_);
  }

 private:
  Narrowed narrow_blocks() {
    if (narrows_blocks(wanted_.widths)) require_widths(model_.sizes(), wanted_.widths, align_);
    if (per_layer_wanted()) require_only_ffn();
    if (wanted_.criterion == "auto") choose_criterion();
    require_possible(model_, wanted_);
    out_["criterion"] = wanted_.criterion;
    if (per_layer_wanted()) return spread();
    return narrow(model_, needs_text(wanted_) ? context_.windows("calib") : at::Tensor(), wanted_, context_.events);
  }

  // Widths that are still auto: several of them under the targets.
  void choose_widths() {
    const std::pair<const char*, const char*> kAxes[] = {{"ffn", "ffn"}, {"kv", "kv"}, {"heads", "q"}, {"hidden", "hidden"}};
    std::map<std::string, std::vector<std::int64_t>> legal;
    ir::Sizes sizes = model_.sizes();
    for (const auto& [setting, axis] : kAxes) {
      if (settings_.is_auto(setting)) legal[axis] = ir::legal_sizes(model_, axis, align_, settings_.text("to"));
      if (const auto fixed = width(settings_, setting)) sizes = ir::at_most(sizes, axis, *fixed);
    }
    if (legal.empty()) return;
    if (wanted_.criterion == "auto") {
      throw Error(ErrorKind::Recipe, "criterion must be named where several widths are auto, but is auto", "try criteria at the widths that are found");
    }
    const ir::Meter meter = meter_of(settings_);
    const std::vector<ir::Target> targets = targets_of(settings_, model_, meter);
    const std::map<std::string, Axis> axes = measured_axes(model_, context_.windows("calib"), wanted_, legal, context_.events);
    const std::map<std::string, std::int64_t> best = best_shape(model_, sizes, axes, targets, meter);
    if (best.empty()) ir::refuse_targets(model_, sizes, legal, targets, meter);
    Widths& w = wanted_.widths;
    for (const auto& [axis, size] : best) {
      (axis == "ffn" ? w.ffn : axis == "kv" ? w.kv : axis == "q" ? w.heads : w.hidden) = size;
      const std::string setting = axis == "q" ? "heads" : axis;
      out_["resolved"][setting] = size;
      context_.events.note(fmt::format("{} auto: {} of {}", setting, size, legal[axis].back()));
    }
  }

  void choose_criterion() {
    const std::vector<Tried> tried = try_criteria(model_, context_.windows("calib"), wanted_, candidates(wanted_.widths), context_.events);
    wanted_.criterion = winner(tried).criterion;
    context_.events.note("criterion auto: " + wanted_.criterion + " is taken");
    out_["tried"] = to_json(tried);
  }

  bool per_layer_wanted() const { return settings_.has("allocate") && settings_.text("allocate") == "per-layer"; }

  void require_only_ffn() const {
    const Widths& w = wanted_.widths;
    if (w.ffn && !w.kv && !w.heads && !w.hidden && !wanted_.merge) return;
    throw Error(ErrorKind::Recipe, "allocate: per-layer must narrow the feed-forward parts alone, but kv, heads or hidden is set too",
                "narrow those in a stage before it");
  }

  // Without a target, what the uniform model has in parameters.
  ir::Target bound(const ir::Meter& meter) const {
    const std::vector<ir::Target> targets = targets_of(settings_, model_, meter);
    if (targets.size() > 1) {
      throw Error(ErrorKind::Recipe, "allocate: per-layer must have one target, but has " + std::to_string(targets.size()), "take the one that binds");
    }
    if (!targets.empty()) return targets.front();
    const ir::Model uniform = ir::resized(model_, ir::at_most(model_.sizes(), "ffn", *wanted_.widths.ffn));
    return {ir::Measure::Parameters, ir::cost(uniform).parameters, "the parameters of the uniform widths"};
  }

  Narrowed spread() {
    const ir::Meter meter = meter_of(settings_);
    PerLayer made = per_layer(model_, context_.windows("calib"), wanted_, align_, bound(meter), meter, context_.events);
    out_["allocation"] = {{"uniform", *wanted_.widths.ffn}, {"block_kl", made.tried}, {"kl_uniform", made.kl_uniform}, {"ffn", made.widths}};
    if (std::isfinite(made.kl_per_layer)) out_["allocation"]["kl_per_layer"] = made.kl_per_layer;
    if (made.widths.empty()) context_.events.warning("no widths by block did better than the uniform ones on held-out text; blocks stay alike");
    return std::move(made.narrowed);
  }

  engine::OpContext& context_;
  const stage::Settings& settings_;
  const ir::Model& model_;
  NarrowSettings wanted_;
  std::int64_t align_;
  Json out_ = Json::object();
};

}  // namespace

void add_prune(engine::Ops& ops) { engine::add_op(ops, prune_info(), [](engine::OpContext& context) { return Prune(context).run(); }); }

}  // namespace slmc::pruning
