#pragma once
// A tokenizer with fewer tokens, on the form that file formats share. Internal to lib/text; the laws are in tokenizer.h.
#include <cstdint>
#include <string>
#include <vector>

#include "text/parts.h"

namespace slmc::text {

// New id of each old one, kNoId for those that go. `kept` lists rows in their new order; of a row that comes twice the first one has the token.
std::vector<std::int32_t> new_ids(const std::vector<std::int64_t>& kept, std::int64_t size);

std::vector<NeededToken> needed_of(const Parts& parts);
// By id of the vocabulary. Tokens that are found in the text itself (added ones) have no parts.
std::vector<TokenParts> token_parts_of(const Parts& parts, const Bpe& bpe);
// `kept` has passed cut_problems.
Parts cut_parts(const Parts& parts, const std::vector<std::int64_t>& kept);
// Why the added tokens of a cut could not be written: `tokenizers` numbers those outside of the vocabulary itself. "" when they can.
std::string numbering_problem(const Parts& parts, const std::vector<std::int32_t>& ids);

}  // namespace slmc::text
