#pragma once
// Byte-pair encoding of one word: start from characters (or bytes), then join the adjacent pair of lowest
// rank, leftmost first, until no pair is in the table [Sennrich et al. 2016, arXiv:1508.07909, algorithm 1].
// Goals: the ids of the `tokenizers` package, no allocation per word. Not goals: dropout, prefixes and
// suffixes of words.
#include <array>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "text/vocabulary.h"

namespace slmc::text {

struct Merge {
  std::int32_t left = 0, right = 0, result = 0;
  bool operator==(const Merge&) const = default;
};

struct BpeRules {
  bool byte_level = false;       // words are bytes; the vocabulary spells them in the alphabet of GPT-2
  bool byte_fallback = false;    // a character without a token becomes <0xXX> tokens
  bool ignore_merges = false;    // a word that is a token as a whole is not taken apart
  bool fuse_unknown = false;     // neighbouring unknown characters give one unknown id
  std::int32_t unknown = kNoId;  // kNoId: characters without a token are dropped
};

// The alphabet of GPT-2: every byte as a printable character, '!'..'~', 0xA1..0xAC and 0xAE..0xFF as
// themselves, the other bytes, in order, as U+0100 and up.
const std::array<char32_t, 256>& byte_alphabet();
int byte_of_alphabet(char32_t code);  // -1 when it is not in the alphabet

struct BpeScratch;  // buffers and a cache of words; one per thread
struct BpeScratchDelete {
  void operator()(BpeScratch* scratch) const;
};
using BpeScratchPtr = std::unique_ptr<BpeScratch, BpeScratchDelete>;

class Bpe {
 public:
  // Merges in rank order, ids within the vocabulary. A pair that comes twice has its last rank. Both must
  // outlive this.
  Bpe(const Vocabulary& vocabulary, const std::vector<Merge>& merges, BpeRules rules);
  static BpeScratchPtr make_scratch();
  // Appends the ids of `word`. Byte-level: any bytes; otherwise valid UTF-8. `scratch` belongs to this Bpe
  // alone.
  void encode(std::string_view word, BpeScratch& scratch, std::vector<std::int32_t>& ids) const;
  // The merge that finishes `word` when it becomes one token; result kNoId when it is a single symbol or ends as several.
  Merge last_merge(std::string_view word, BpeScratch& scratch) const;
  // No pair joins a left part that does not end in `marker` with a right part that starts with it, so that
  // text may be cut there without changing ids.
  bool may_cut_before(std::string_view marker) const;

 private:
  struct Pair {
    std::uint64_t key = kEmpty;  // left << 32 | right
    std::uint32_t rank = 0;
  };
  static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};
  std::uint32_t rank(std::int32_t left, std::int32_t right) const;
  void fill_pairs();
  void fill_symbols();
  std::int32_t whole(std::string_view word, BpeScratch& scratch) const;
  void start(std::string_view word, std::vector<std::int32_t>& symbols) const;
  void start_bytes(std::string_view word, std::vector<std::int32_t>& symbols) const;
  std::uint32_t merge(BpeScratch& scratch) const;  // until no pair is left; the last rank, kNoRank when there was none
  std::uint32_t merge_short(std::vector<std::int32_t>& symbols, std::vector<std::uint32_t>& ranks) const;
  std::uint32_t merge_long(BpeScratch& scratch) const;

  const Vocabulary& vocabulary_;
  const std::vector<Merge>& merges_;
  BpeRules rules_;
  std::vector<Pair> pairs_;  // open addressing; a power of two, at most half full
  int shift_ = 0;
  std::array<std::int32_t, 256>
      bytes_{};  // byte-level: token of a byte; otherwise token of an ASCII character
  std::array<std::int32_t, 256> fallback_{};  // <0xXX>
};

}  // namespace slmc::text
