#pragma once
// Between merges in rank order and one score per piece, the form of SentencePiece and of GGUF. Internal to
// lib/text.
#include <cstdint>
#include <vector>

#include "text/bpe.h"
#include "text/vocabulary.h"

namespace slmc::text {

enum TokenType : std::int64_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUser = 4,
  kUnused = 5,
  kByte = 6
};  // of GGUF

// SentencePiece merges the two neighbours whose joint piece has the highest score. As ranks: pieces by
// falling score, and of the cuts of one piece the one with the longest left part first, which is how
// `transformers` writes tokenizer.json. Pieces of more than 1024 characters (SentencePiece makes none above 16 unless
// told otherwise) get no merges, so text never becomes one.
std::vector<Merge> merges_by_score(const Vocabulary& vocabulary, const std::vector<double>& scores,
                                   const std::vector<std::int64_t>& types);

// Scores fall with the rank of the first merge that makes a piece. They say everything only if the merges are
// those that `merges_by_score` gives back, up to the order within one piece, where llama.cpp takes the
// leftmost.
std::vector<double> scores_of(const Vocabulary& vocabulary, const std::vector<Merge>& merges,
                              const std::vector<std::int64_t>& types);

}  // namespace slmc::text
