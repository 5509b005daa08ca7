#pragma once
// MAW ("maximum absolute weight") of OptiPFair: the spread of the weights that make a channel [Martra 2025, arXiv:2512.22671, there
// peak-to-peak magnitude]. Needs no text; for gated feed-forward parts.
//   channel i   (max gate_i + |min gate_i|) + (max up_i + |min up_i|)         maxima over the row's weights, signs kept
// Differs from the paper: without a gate the second term stands alone.
#include "pruning/width/criterion.h"

namespace slmc::pruning {

at::Tensor maw_of_channels(const FfnPart& part);

}  // namespace slmc::pruning
