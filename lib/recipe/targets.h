#pragma once
// Inside recipe: settings that are targets (ir/target.h) become widths, as far as shapes alone decide them.
#include <string>
#include <vector>

#include "ir/model.h"
#include "recipe/decode.h"

namespace slmc::recipe {

// Of stage `i`, which reads `model`. `file_type: auto` becomes the type of the next quantizer. With targets the one axis that is `auto` (ffn,
// when none is given at all) gets the largest size that keeps them all; several are measured when the stage runs; when none is, targets only
// judge. Targets that no legal sizes keep and `auto` without a target are problems.
void resolve_targets(Recipe& recipe, std::size_t i, const ir::Model& model, Problems& problems);

// Whether the stage lets blocks differ in a way that is measured when it runs; then `model`, its result otherwise, must be one whose container
// can say that blocks differ. Problems say why not.
void check_apart(const StageEntry& entry, const ir::Model& model, const std::string& container, std::vector<std::string>& assumed,
                 Problems& problems);

}  // namespace slmc::recipe
