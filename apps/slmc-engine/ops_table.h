#pragma once
// Every op of this program: the engine's own and those of the method folders.
#include "engine/op.h"

namespace slmc {

engine::Ops ops_table();

}  // namespace slmc
