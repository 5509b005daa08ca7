#pragma once
// The ops of this folder: prune, drop and shear.
#include "engine/op.h"

namespace slmc::pruning {

void add_prune(engine::Ops& ops);
void add_drop(engine::Ops& ops);
void add_shear(engine::Ops& ops);
inline void add_ops(engine::Ops& ops) { add_prune(ops), add_drop(ops), add_shear(ops); }

}  // namespace slmc::pruning
