#pragma once
// Settings that every training stage has. engine/train/training.cpp reads them.
#include <vector>

#include "stage/settings.h"

namespace slmc::stage {

// `own` first, then tokens, lr, batch_tokens, schedule and the rest.
std::vector<Setting> training_settings(std::vector<Setting> own);

// What stages that recover a model have besides: low-rank adapters, and keeping the best weights. To be handed to training_settings.
std::vector<Setting> with_recovery_settings(std::vector<Setting> own);

// What stages that train on the next token have besides: weights of domains that follow their losses. To be handed to training_settings.
std::vector<Setting> with_domain_settings(std::vector<Setting> own);

}  // namespace slmc::stage
