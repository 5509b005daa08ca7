#pragma once
// Settings that every training stage has. engine/train/training.cpp reads them.
#include <vector>

#include "stage/settings.h"

namespace slmc::stage {

// `own` first, then tokens, lr, batch_tokens, schedule and the rest.
std::vector<Setting> training_settings(std::vector<Setting> own);

}  // namespace slmc::stage
