#include "recipe/targets.h"

#include <fmt/format.h>

#include <algorithm>

#include "ir/plan.h"
#include "ir/target.h"
#include "recipe/walk.h"

namespace slmc::recipe {
namespace {

using stage::Effect;
using stage::Value;

Place place_of(const StageEntry& entry, const std::string& setting) {
  const auto it = entry.places.find(setting);
  return it == entry.places.end() ? entry.place : it->second;
}

void set_auto(StageEntry& entry, const std::string& setting, Value value) {
  value.from = Value::From::Auto;
  entry.settings.set(setting, std::move(value));
}

// Widths that can be `auto`: setting and axis.
std::vector<Effect> plannable(const StageEntry& entry) {
  std::vector<Effect> out;
  for (const Effect& effect : entry.info->effects) {
    const auto& table = entry.info->settings;
    const auto it = std::find_if(table.begin(), table.end(), [&](const stage::Setting& s) { return s.name == effect.setting; });
    const bool meant = effect.only_beside.empty() || !entry.settings.has(effect.only_beside) || entry.settings.text(effect.only_beside) == effect.only_value;
    if (meant && effect.kind == Effect::Kind::Resize && it != table.end() && it->may_be_auto) out.push_back(effect);
  }
  return out;
}

std::vector<std::string> targets_of(const StageEntry& entry) {
  std::vector<std::string> out;
  for (const auto& [setting, measure] : ir::target_settings())
    if (entry.settings.has(setting)) out.push_back(setting);
  return out;
}

void resolve_file_type(Recipe& recipe, std::size_t i) {
  StageEntry& entry = recipe.stages[i];
  if (!entry.settings.is_auto("file_type")) return;
  std::string type = "f16";
  for (std::size_t later = recipe.stages.size(); later-- > i + 1;) {
    const StageEntry& next = recipe.stages[later];
    if (next.info->quantizes && stage::output_of(*next.info, next.settings) == "gguf" && given(next, "type")) type = next.settings.text("type");
  }
  set_auto(entry, "file_type", {.value = type});
}

class Resolving {
 public:
  Resolving(StageEntry& entry, const ir::Model& model, Problems& problems) : entry_(entry), model_(model), problems_(problems) {}

  void run() {
    const std::vector<std::string> names = targets_of(entry_);
    std::vector<Effect> free;
    bool any = false;
    for (const Effect& effect : plannable(entry_)) {
      any = any || entry_.settings.has(effect.setting);
      if (entry_.settings.is_auto(effect.setting)) free.push_back(effect);
    }
    if (names.empty()) {
      for (const Effect& effect : free) problem(effect.setting, fmt::format("'{}: auto' must have a target to follow from, but there is none", effect.setting),
                                                "for example params: -20%");
      return;
    }
    if (entry_.settings.has("kv_mode") && entry_.settings.text("kv_mode") == "merge") {
      return problem("kv_mode", "targets must stand beside 'kv_mode: drop', but groups are merged", "merge them in a stage of its own");
    }
    if (!any) {
      free.push_back(plannable(entry_).front());
      set_auto(entry_, free.front().setting, {.value = std::string("auto"), .is_auto = true});
    }
    if (entry_.settings.has("latency_table")) meter_.latency = ir::read_latency_table(entry_.settings.text("latency_table"));
    if (entry_.settings.has("file_type")) meter_.file_type = entry_.settings.text("file_type");
    for (const std::string& name : names) targets_.push_back(ir::target_from(name, entry_.settings.text(name), model_, meter_));
    const ir::Sizes sizes = fixed_sizes();
    if (free.empty()) return require_kept(sizes, names);
    const std::string container = stage::output_of(*entry_.info, entry_.settings);
    const std::int64_t align = given(entry_, "align") ? entry_.settings.integer("align") : 1;
    std::map<std::string, std::vector<std::int64_t>> legal;
    for (const Effect& effect : free) legal[effect.axis] = ir::legal_sizes(model_, effect.axis, align, container);
    if (free.size() > 1) {
      ir::Sizes least = sizes;
      for (const auto& [axis, all] : legal) least = ir::at_most(least, axis, all.front());
      if (!ir::keeps(ir::resized(model_, least), targets_, meter_)) ir::refuse_targets(model_, sizes, legal, targets_, meter_);
      if (!stage::needs_of(*entry_.info, entry_.settings).calib)
        problem(free[1].setting, fmt::format("{} and {} are chosen on calibration text, which the criterion or the refit must read too, but do not",
                                             free[0].setting, free[1].setting), "take refit: dense");
      return;                                 // measured when the stage runs
    }
    const Effect& effect = free.front();
    const auto size = ir::largest_size(model_, sizes, effect.axis, legal[effect.axis], targets_, meter_);
    if (!size) ir::refuse_targets(model_, sizes, legal, targets_, meter_);
    set_auto(entry_, effect.setting, {.value = *size});
  }

 private:
  ir::Sizes fixed_sizes() const {
    ir::Sizes sizes = model_.sizes();
    for (const Effect& effect : plannable(entry_))
      if (given(entry_, effect.setting)) sizes = ir::at_most(sizes, effect.axis, entry_.settings.integer(effect.setting));
    return sizes;
  }

  // Every width is given: targets only judge.
  void require_kept(const ir::Sizes& sizes, const std::vector<std::string>& names) {
    const ir::Model cut = ir::resized(model_, sizes);
    for (std::size_t t = 0; t < targets_.size(); ++t) {
      const std::int64_t now = ir::cost_in(targets_[t].measure, cut, meter_);
      if (now > targets_[t].most)
        problem(names[t], fmt::format("the result must keep to {}, at most {}, but would have {}", targets_[t].text, targets_[t].most, now),
                "let a width be auto");
    }
  }

  void problem(const std::string& setting, const std::string& message, const std::string& hint) {
    problems_.push_back({message, place_of(entry_, setting), hint});
  }

  StageEntry& entry_;
  const ir::Model& model_;
  Problems& problems_;
  ir::Meter meter_;
  std::vector<ir::Target> targets_;
};

}  // namespace

void resolve_targets(Recipe& recipe, std::size_t i, const ir::Model& model, Problems& problems) {
  StageEntry& entry = recipe.stages[i];
  if (plannable(entry).empty()) return;
  resolve_file_type(recipe, i);
  try {
    Resolving(entry, model, problems).run();
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::Internal) throw;
    const std::vector<std::string> names = targets_of(entry);
    for (const Diagnostic& d : error.diagnostics())
      problems.push_back({d.message, d.place.file.empty() ? place_of(entry, names.empty() ? "" : names.front()) : d.place, d.hint});
  }
}

void check_apart(const StageEntry& entry, const ir::Model& model, const std::string& container, std::vector<std::string>& assumed,
                 Problems& problems) {
  if (!entry.settings.has("allocate") || entry.settings.text("allocate") == "uniform") return;
  assumed.push_back("how wide each block becomes is measured; the uniform width is assumed");
  ir::Sizes sizes = model.sizes();
  if (sizes.blocks.size() < 2 || sizes.blocks.back().ffn < 2) return;
  --sizes.blocks.back().ffn;
  const ir::Model apart = ir::resized(model, sizes);
  const ir::Verdict verdict = ir::check(ir::Plan(apart), apart);
  if (verdict.fits(container)) return;
  problems.push_back({fmt::format("'allocate: {}' must have a container whose blocks may differ, but: {}", entry.settings.text("allocate"),
                                  verdict.cannot.at(container).front().message),
                      place_of(entry, "allocate"), container == "hf" && verdict.fits("gguf") ? "write a GGUF: to: gguf, or -o OUT.gguf" : "take allocate: uniform"});
}

}  // namespace slmc::recipe
