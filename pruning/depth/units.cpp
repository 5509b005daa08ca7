#include "pruning/depth/units.h"

namespace slmc::pruning {

std::string to_string(const Unit& unit) {
  const std::string block = "block " + std::to_string(unit.block);
  if (unit.part == Part::Block) return block;
  return (unit.part == Part::Attention ? "the attention of " : "the feed-forward part of ") + block;
}

std::vector<Unit> units_of(const ir::Sizes& sizes, const std::string& kind) {
  std::vector<Unit> out;
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(sizes.blocks.size()); ++i) {
    const ir::BlockSizes& block = sizes.blocks[static_cast<std::size_t>(i)];
    if (kind == "layer") out.push_back({i, Part::Block});
    if ((kind == "attn" || kind == "any") && block.heads() > 0) out.push_back({i, Part::Attention});
    if ((kind == "mlp" || kind == "any") && block.ffn > 0) out.push_back({i, Part::FeedForward});
  }
  return out;
}

engine::Arch without(engine::Arch arch, const Unit& unit) {
  ir::BlockSizes& block = arch.sizes.blocks.at(static_cast<std::size_t>(unit.block));
  if (unit.part != Part::FeedForward) block.kv = 0;
  if (unit.part != Part::Attention) block.ffn = 0;
  return arch;
}

engine::Arch without(engine::Arch arch, const std::vector<Unit>& units) {
  for (const Unit& unit : units) arch = without(std::move(arch), unit);
  return arch;
}

bool is_there(const engine::Arch& arch, const Unit& unit) {
  const ir::BlockSizes& block = arch.sizes.blocks.at(static_cast<std::size_t>(unit.block));
  switch (unit.part) {
    case Part::Attention: return block.heads() > 0;
    case Part::FeedForward: return block.ffn > 0;
    default: return block.heads() > 0 || block.ffn > 0;
  }
}

std::int64_t parameters_of(const ir::Model& model, const Unit& unit) {
  const std::string block = "block." + std::to_string(unit.block) + ".";
  const std::string prefix = unit.part == Part::Block ? block : block + (unit.part == Part::Attention ? "attn." : "ffn.");
  std::int64_t sum = 0;
  for (const ir::TensorSpec& spec : model.tensors()) {
    if (spec.derived || !spec.name.starts_with(prefix)) continue;
    std::int64_t count = 1;
    for (const std::int64_t n : spec.shape) count *= n;
    sum += count;
  }
  return sum;
}

}  // namespace slmc::pruning
