#pragma once
// The stage `drop` without LibTorch: what recipes, help and plans need to know. The code is in drop.cpp.
#include "stage/info.h"

namespace slmc::pruning {

const stage::StageInfo& drop_info();

}  // namespace slmc::pruning
