#pragma once
// The stage `distill` without LibTorch: what recipes, help and plans need to know. The code is in distill_op.cpp.
#include "stage/info.h"

namespace slmc::distillation {

const stage::StageInfo& distill_info();

}  // namespace slmc::distillation
