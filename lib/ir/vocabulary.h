#pragma once
// What `take: vocab` changes beside rows: the tokenizer, and every place of a model's files that names a token by its id.
#include <cstdint>
#include <string>
#include <vector>

#include "ir/plan.h"
#include "text/tokenizer.h"

namespace slmc::ir {

// Rows that every cut of this model's vocabulary must leave, ascending, each once: what the tokenizer needs (text/tokenizer.h), and ids that
// config.json, generation_config.json or GGUF metadata give to a token. Empty for a model without a tokenizer.
std::vector<text::NeededToken> needed_tokens(const Model& model);

// A legal cut that asks nobody: the needed rows, then ids in ascending order, each with the tokens that it is merged from, `size` in all,
// ascending. BPE numbers tokens as it found them, frequent ones first. Error(Recipe) when `size` is less than what is needed, or more than
// the model has.
std::vector<std::int64_t> first_tokens(const Model& model, std::int64_t size);

// Every needed row and, for each token of `wanted` in its order, that token with those it is merged from, as long as all of them fit into
// `size`; ascending. Fewer than `size` when `wanted` ends.
std::vector<std::int64_t> closed_vocabulary(const Model& model, const std::vector<std::int64_t>& wanted, std::int64_t size);

}  // namespace slmc::ir
