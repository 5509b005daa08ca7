#pragma once
// The stage `train` without LibTorch: what recipes, help and plans need to know. The code is in train_op.cpp.
#include "stage/info.h"

namespace slmc::distillation {

const stage::StageInfo& train_info();

}  // namespace slmc::distillation
