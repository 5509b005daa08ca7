#pragma once
// The stages of this program, in the order of help.
#include "stage/info.h"

namespace slmc::cli {

const stage::Registry& registry();

}  // namespace slmc::cli
