#pragma once
// The stage `quantize` without LibTorch: what recipes, help and plans need to know. The code is in quantize.cpp.
#include "stage/info.h"

namespace slmc::quantization {

const stage::StageInfo& quantize_info();

}  // namespace slmc::quantization
