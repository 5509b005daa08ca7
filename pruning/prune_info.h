#pragma once
// The stage `prune` without LibTorch: what recipes, help and plans need to know. The code is in prune.cpp.
#include "stage/info.h"

namespace slmc::pruning {

const stage::StageInfo& prune_info();

}  // namespace slmc::pruning
