#pragma once
// Two models that are compared token by token.
#include "ir/model.h"

namespace slmc::ir {

// Distributions over tokens can only be compared when equal ids are equal tokens, on the shared front of both vocabularies.
// Beyond it only tokens that text never becomes by itself may stand: added ones, and rows that pad.
// Error(Usage) naming the first id that differs, or the model without a tokenizer.
void require_same_tokens(const Model& student, const Model& teacher);

}  // namespace slmc::ir
