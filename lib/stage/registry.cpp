#include <algorithm>

#include "stage/beside.h"
#include "stage/info.h"

namespace slmc::stage {
namespace {

// A table that contradicts itself is a bug of ours; better found at the first start than in the one recipe
// that meets it.
void require_sound(const StageInfo& info) {
  SLMC_CHECK(!info.name.empty() && !info.summary.empty());
  const auto declared = [&](const std::string& name) {
    return std::count_if(info.settings.begin(), info.settings.end(),
                         [&](const Setting& s) { return s.name == name; });
  };
  for (const Setting& s : info.settings) {
    SLMC_CHECK(declared(s.name) == 1 && !s.help.empty());
    SLMC_CHECK((s.type == Type::Choice) == !s.choices.empty());
    if (s.fallback) parse_value(s, *s.fallback);
    const std::vector<std::string> beside = settings_beside(s);
    SLMC_CHECK(s.only_values.empty() || beside.size() == 1);
    for (const std::string& other : beside) SLMC_CHECK(declared(other) == 1);
  }
  for (const Effect& effect : info.effects) {
    SLMC_CHECK(declared(effect.setting) == 1 && (effect.only_beside.empty() || declared(effect.only_beside) == 1));
  }
  for (const MethodInfo& method : info.methods) {
    const auto setting = std::find_if(info.settings.begin(), info.settings.end(),
                                      [&](const Setting& s) { return s.name == method.setting; });
    SLMC_CHECK(setting != info.settings.end());
    const bool choice = std::count(setting->choices.begin(), setting->choices.end(), method.name) == 1;
    for (const std::string& other : names_in(method.unless)) SLMC_CHECK(declared(other) == 1);
    SLMC_CHECK(choice || (setting->type == Type::Boolean && method.name == "true"));
  }
}

bool chosen(const StageInfo& info, const MethodInfo& method, const Settings& settings) {
  const auto setting = std::find_if(info.settings.begin(), info.settings.end(), [&](const Setting& s) { return s.name == method.setting; });
  if (!means_something(*setting, settings)) return false;
  if (!settings.has(method.setting) || settings.is_auto(method.setting)) return false;
  const std::vector<std::string> instead = names_in(method.unless);
  if (std::any_of(instead.begin(), instead.end(), [&](const std::string& other) { return settings.has(other); })) return false;
  const bool boolean = std::holds_alternative<bool>(settings.all().at(method.setting).value);
  return boolean ? settings.boolean(method.setting) : settings.text(method.setting) == method.name;
}

void add(Needs& needs, const Needs& more) {
  needs.calib |= more.calib;
  needs.train |= more.train;
  needs.teacher |= more.teacher;
  needs.whole |= more.whole;
  needs.passes += more.passes;
  needs.drawn |= more.drawn;
}

}  // namespace

void Registry::add(StageInfo info) {
  SLMC_CHECK(find(info.name) == nullptr);
  require_sound(info);
  stages_.push_back(std::move(info));
}

const StageInfo* Registry::find(std::string_view name) const {
  const auto it =
      std::find_if(stages_.begin(), stages_.end(), [&](const StageInfo& s) { return s.name == name; });
  return it == stages_.end() ? nullptr : &*it;
}

std::vector<std::string> Registry::names() const {
  std::vector<std::string> out;
  for (const StageInfo& info : stages_) out.push_back(info.name);
  return out;
}

Needs needs_of(const StageInfo& info, const Settings& settings) {
  Needs needs = info.needs;
  for (const MethodInfo& method : info.methods) {
    if (chosen(info, method, settings)) add(needs, method.needs);
  }
  for (const Effect& effect : info.effects) {
    if (settings.has(effect.setting) && !settings.is_auto(effect.setting)) add(needs, effect.needs);
  }
  return needs;
}

std::string output_of(const StageInfo& info, const Settings& settings) {
  if (!info.output.empty()) return info.output;
  return settings.has("to") && !settings.is_auto("to") ? settings.text("to") : "hf";
}

}  // namespace slmc::stage
