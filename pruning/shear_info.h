#pragma once
// The stage `shear` without LibTorch: what recipes, help and plans need to know. The code is in shear.cpp.
#include "stage/info.h"

namespace slmc::pruning {

const stage::StageInfo& shear_info();

}  // namespace slmc::pruning
