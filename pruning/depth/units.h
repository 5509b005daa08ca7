#pragma once
// What a depth search may take away: whole blocks, or one of the two parts of a block. A cut is nothing but sizes: a part of size 0 is
// absent (lib/ir/model.h, M2) and the decoder leaves it out with its norm and biases, which is what gates of zeros do (the gate law).
#include <cstdint>
#include <string>
#include <vector>

#include "engine/decoder.h"
#include "ir/model.h"

namespace slmc::pruning {

enum class Part { Block, Attention, FeedForward };

struct Unit {
  std::int64_t block = 0;
  Part part = Part::Block;
  auto operator<=>(const Unit&) const = default;
};
std::string to_string(const Unit& unit);                  // "block 3", "the attention of block 3"

// Those of a model that are there, by rising block: kind is "layer" (whole blocks), "attn", "mlp", or "any" (attention and
// feed-forward parts, as BlockPruner [Zhong et al. 2024, arXiv:2406.10594] takes them).
std::vector<Unit> units_of(const ir::Sizes& sizes, const std::string& kind);

engine::Arch without(engine::Arch arch, const Unit& unit);
engine::Arch without(engine::Arch arch, const std::vector<Unit>& units);
bool is_there(const engine::Arch& arch, const Unit& unit);      // or, of a whole block, one part of it

// Parameters that go with a unit, norms and biases included.
std::int64_t parameters_of(const ir::Model& model, const Unit& unit);

}  // namespace slmc::pruning
