#pragma once
// Readers of evaluation files: multiple choice and minimal pairs. They give texts and token sequences; the
// engine scores. Plain text for perplexity: read_documents of source.h.
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace slmc::data {

// One item of {"query": text, "choices": [text ..], "gold": index} lines, after HellaSwag's clean-up.
struct ChoiceItem {
  std::string context;
  std::vector<std::string> choices;  // the continuation is a blank and the choice
  std::int64_t gold = 0;             // index of the right one
};
// The text of HellaSwag as it is scored (lm-evaluation-harness 0.4, hellaswag/utils.py): white space at both
// ends is stripped, " [title]" becomes ". ", what stands in brackets on one line goes, two blanks become one.
// Other texts rarely change.
std::string clean_up(std::string_view text);
// At most `first` items (0 = all). Error(Data) with file and line.
std::vector<ChoiceItem> read_choices(const std::filesystem::path& file, std::int64_t first = 0);

// A text whose tokens from `start` on are scored, each given all before it.
struct ScoredSequence {
  std::vector<std::int32_t> ids;
  std::int64_t start = 0;  // >= 1: a first token without context has no probability
  std::int64_t characters = 0;  // of the scored text, the blank in front left out: acc_norm divides by them
};
// One sequence per choice: context, blank and choice are encoded together, the context alone gives `start`,
// so that a token across the border belongs to the choice.
std::vector<ScoredSequence> sequences(const ChoiceItem& item, const text::Tokenizer& tokenizer);

// {"sentence_good": text, "sentence_bad": text, "UID": name of the set, optional} lines (BLiMP).
struct MinimalPair {
  std::string good, bad, set;
};
std::vector<MinimalPair> read_pairs(const std::filesystem::path& file, std::int64_t first = 0);
// The whole sentence, from its second token on: what a model without a beginning-of-text token can be asked.
ScoredSequence sequence(const std::string& sentence, const text::Tokenizer& tokenizer);

}  // namespace slmc::data
