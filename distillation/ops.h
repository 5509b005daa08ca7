#pragma once
// The stages of this folder as code: distill, train.
#include "engine/op.h"

namespace slmc::distillation {

void add_ops(engine::Ops& ops);

}  // namespace slmc::distillation
