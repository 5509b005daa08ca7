#pragma once
// Which tokens a smaller vocabulary keeps. A token's absence costs the bits of its pieces, so what matters is how often it comes in the texts to
// come: calibration text says it for the frequent ones, the order of the merges or the model (expected.h) for the rest.
#include <cstdint>
#include <string_view>
#include <vector>

#include "data/source.h"
#include "ir/model.h"

namespace slmc::pruning {

// How often each token comes in all documents of `spec`, each read once, whatever its samples and weights say; end-of-text ids are not counted.
// By id, `vocab` of them. Error(Data) from the readers.
std::vector<double> token_counts(const text::Tokenizer& tokenizer, const data::DataSpec& spec, std::int64_t vocab);

// What each count was likely to be before it was counted: the falling function of the id that is nearest to the counts in squares (isotonic
// regression by pooling adjacent violators; Ayer et al. 1955, Ann. Math. Stat. 26). BPE numbers tokens as it merges them, frequent ones first.
std::vector<double> expected_by_rank(const std::vector<double>& counts);

// Ids by falling worth, of equal ones the lower id.
std::vector<std::int64_t> by_worth(const std::vector<double>& worth);

// Ids by falling count + expected_by_rank, as if each token had been counted once more in a text like that of the tokenizer's makers; of equal
// ones the lower id.
std::vector<std::int64_t> by_count(const std::vector<double>& counts);

}  // namespace slmc::pruning
