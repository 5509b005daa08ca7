// The stages' records are sound, and every stage that runs in the engine has code under the same name with the same record.
#include <gtest/gtest.h>

#include <algorithm>

#include "pruning/drop_info.h"
#include "pruning/prune_info.h"
#include "quantization/quantize_info.h"
#include "stage/info.h"

namespace slmc {
namespace {

TEST(Registry, RecordsOfMethodFoldersAreSound) {
  stage::Registry registry;
  registry.add(pruning::drop_info());          // add() checks names, defaults, choices, methods and effects
  registry.add(pruning::prune_info());
  registry.add(quantization::quantize_info());
  EXPECT_EQ(registry.names(), (std::vector<std::string>{"drop", "prune", "quantize"}));
}

TEST(Registry, EveryMethodOfAChoiceIsDescribed) {
  for (const stage::StageInfo* info : {&pruning::drop_info(), &pruning::prune_info(), &quantization::quantize_info()}) {
    for (const stage::MethodInfo& method : info->methods) {
      const auto setting = std::find_if(info->settings.begin(), info->settings.end(), [&](const auto& s) { return s.name == method.setting; });
      const auto described = std::count_if(info->methods.begin(), info->methods.end(), [&](const auto& m) { return m.setting == method.setting; });
      EXPECT_EQ(static_cast<std::size_t>(described), setting->choices.size()) << info->name << " " << method.setting;
    }
  }
}

}  // namespace
}  // namespace slmc
