#pragma once
// The ops of this folder: prune and drop.
#include "engine/op.h"

namespace slmc::pruning {

void add_prune(engine::Ops& ops);
void add_drop(engine::Ops& ops);
inline void add_ops(engine::Ops& ops) { add_prune(ops), add_drop(ops); }

}  // namespace slmc::pruning
