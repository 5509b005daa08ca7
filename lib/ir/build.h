#pragma once
// The model that a plan makes, shapes and recipes of values only; nothing is read. Shared by check and apply;
// private to lib/ir.
#include <memory>
#include <vector>

#include "ir/plan.h"
#include "ir/state.h"

namespace slmc::ir {

struct Built {
  std::vector<Violation> violations;  // empty: `state` is the result
  std::shared_ptr<Model::State> state;
};
Built build(const Plan& plan, const Model& base);

// Which coordinates of the base each axis of the result keeps. Null: all, in order.
struct Kept {
  std::vector<std::int64_t> blocks;  // base block of each block of the result
  Index vocab, hidden, pos;
  struct Block {
    Index kv, freq, pass, vd, ffn;
    std::vector<std::vector<std::int64_t>> q;  // [kept group] -> query heads; empty: all, in order
  };
  std::vector<Block> block;  // of the result
};

// Reads and checks `take`: names, ranges, equal numbers of query heads, nothing emptied that a model needs.
Kept kept_of(const Plan& plan, const Model& base, std::vector<Violation>& violations);
Sizes sizes_after(const Sizes& base, const Kept& kept);
// Entries of one dimension that are kept, in the base's numbering; null when all are, in order.
Index kept_entries(const Dim& dim, const Sizes& base, std::int64_t base_block, const Sizes& result,
                   std::int64_t block, const Kept& kept);
// Why a tokenizer could not follow such a cut of the vocabulary, and the cut of everything that names tokens (vocabulary.cpp).
std::vector<Violation> vocabulary_violations(const Model& base, const std::vector<std::int64_t>& kept);
void cut_vocabulary(Model::State& state, const std::vector<std::int64_t>& kept);
Origin composed(const Origin& base, const Kept& kept, const Sizes& base_sizes, const Sizes& sizes);

}  // namespace slmc::ir
