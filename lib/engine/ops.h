#pragma once
// The engine's own ops, one function per source file; op.cpp puts them together.
#include "engine/op.h"

namespace slmc::engine {

void add_eval(Ops& ops);          // eval               op_eval.cpp
void add_bench(Ops& ops);         // bench, doctor      op_bench.cpp
void add_generate(Ops& ops);      // generate, chat     op_generate.cpp

}  // namespace slmc::engine
