#pragma once
// Settings that every training stage has, without LibTorch. training.cpp reads them.
#include <vector>

#include "stage/settings.h"

namespace slmc::distillation {

// `own` first, then tokens, lr, batch_tokens, schedule and the rest.
std::vector<stage::Setting> training_settings(std::vector<stage::Setting> own);

}  // namespace slmc::distillation
