#pragma once
// `slmc train --objective classify`: settings into a classifier, its training, and the model folder with the classifier beside the weights.
#include "engine/op.h"

namespace slmc::distillation {

// `model` is what is tuned: the job's, or its shape with drawn weights.
Json train_classifier(engine::OpContext& context, const ir::Model& model, bool from_scratch);

}  // namespace slmc::distillation
