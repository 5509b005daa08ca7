#pragma once
// The stage `quantize`: settings in quantize_info.cpp. Solves codes for the maps of the blocks (blocks.h), or leaves rounding to the
// container's reference fit, and has lib/ir write the file.
#include "engine/op.h"

namespace slmc::quantization {

void add_ops(engine::Ops& ops);

}  // namespace slmc::quantization
