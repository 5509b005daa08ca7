// The stages' records are sound, and every stage that runs in the engine has code under the same name with the same record.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "distillation/distill_info.h"
#include "distillation/train_info.h"
#include "pruning/drop_info.h"
#include "pruning/prune_info.h"
#include "pruning/shear_info.h"
#include "quantization/quantize_info.h"
#include "stage/info.h"

namespace slmc {
namespace {

stage::Registry everything() {
  stage::Registry registry;
  registry.add(pruning::drop_info());          // add() checks names, defaults, choices, methods and effects
  registry.add(pruning::prune_info());
  registry.add(pruning::shear_info());
  registry.add(distillation::distill_info());
  registry.add(distillation::train_info());
  registry.add(quantization::quantize_info());
  return registry;
}

TEST(Registry, RecordsOfMethodFoldersAreSound) {
  EXPECT_EQ(everything().names(), (std::vector<std::string>{"drop", "prune", "shear", "distill", "train", "quantize"}));
}

// A list of blocks is not searched for; without healing nothing looks at text.
TEST(Registry, DropNeedsTextOnlyForWhatItMeasures) {
  const stage::StageInfo& drop = pruning::drop_info();
  const auto calib = [&](const Json& given) {
    std::vector<Diagnostic> problems;
    const stage::Settings settings = stage::parse_settings(drop.settings, given, [](std::string_view) { return Place(); }, problems);
    EXPECT_TRUE(problems.empty());
    return stage::needs_of(drop, settings).calib;
  };
  EXPECT_TRUE(calib({{"layers", 3}}));
  EXPECT_TRUE(calib({{"layers", 3}, {"heal", "none"}}));
  EXPECT_TRUE(calib({{"list", {3, 4}}}));
  EXPECT_FALSE(calib({{"list", {3, 4}}, {"heal", "none"}}));
}

TEST(Registry, EveryMethodOfAChoiceIsDescribed) {
  const stage::Registry registry = everything();
  for (const stage::StageInfo& stage : registry.all()) {
    const stage::StageInfo* info = &stage;
    for (const stage::MethodInfo& method : info->methods) {
      const auto setting = std::find_if(info->settings.begin(), info->settings.end(), [&](const auto& s) { return s.name == method.setting; });
      const auto described = std::count_if(info->methods.begin(), info->methods.end(), [&](const auto& m) { return m.setting == method.setting; });
      EXPECT_EQ(static_cast<std::size_t>(described), std::max<std::size_t>(1, setting->choices.size())) << info->name << " " << method.setting;
    }
  }
}

}  // namespace
}  // namespace slmc
