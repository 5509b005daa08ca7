#include "text/bpe.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>

#include "text/unicode.h"

namespace slmc::text {
namespace {

constexpr std::uint32_t kNoRank = 0xFFFFFFFF;
constexpr std::size_t kShort = 48;       // symbols; longer words use the heap
constexpr std::size_t kSlots = 1 << 15;  // words in the cache, 64 bytes each
constexpr std::size_t kKeyBytes = 23, kCachedIds = 9;

// One remembered word. The key is the word, padded with zeros, and its length in the last byte: never all
// zero.
struct Slot {
  std::array<std::uint64_t, 3> key{};
  std::int32_t count = 0;
  std::array<std::int32_t, kCachedIds> ids{};
};
static_assert(sizeof(Slot) == 64);

struct Candidate {
  std::uint32_t rank, position;
  bool operator<(
      const Candidate& other) const {  // for a heap whose front is the lowest rank, then the leftmost
    return rank != other.rank ? rank > other.rank : position > other.position;
  }
};

std::array<std::uint64_t, 3> cache_key(std::string_view word) {
  std::array<char, 24> bytes{};
  std::memcpy(bytes.data(), word.data(), word.size());
  bytes[23] = static_cast<char>(word.size());
  return std::bit_cast<std::array<std::uint64_t, 3>>(bytes);
}

std::size_t cache_slot(const std::array<std::uint64_t, 3>& key) {
  std::uint64_t h = key[0] * 0x9E3779B97F4A7C15 ^ key[1] * 0xC2B2AE3D27D4EB4F ^ key[2] * 0x165667B19E3779F9;
  h ^= h >> 29;
  return static_cast<std::size_t>(h * 0x9E3779B97F4A7C15 >> (64 - std::bit_width(kSlots - 1)));
}

}  // namespace

struct BpeScratch {
  std::vector<Slot> cache = std::vector<Slot>(kSlots);
  std::vector<std::int32_t> symbols;
  std::vector<std::uint32_t> ranks;  // of the pair that starts at a symbol
  std::vector<std::int32_t> next, previous;
  std::vector<Candidate> heap;
  std::string spelling;
};

void BpeScratchDelete::operator()(BpeScratch* scratch) const { delete scratch; }
BpeScratchPtr Bpe::make_scratch() { return BpeScratchPtr(new BpeScratch); }

const std::array<char32_t, 256>& byte_alphabet() {
  static const auto alphabet = [] {
    std::array<char32_t, 256> codes{};
    char32_t other = 0x100;
    for (char32_t b = 0; b < 256; ++b) {
      const bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xFF && b != 0xAD);
      codes[b] = printable ? b : other++;
    }
    return codes;
  }();
  return alphabet;
}

int byte_of_alphabet(char32_t code) {
  static const auto bytes = [] {
    std::array<std::int16_t, 0x144> inverse{};
    inverse.fill(-1);
    for (int b = 0; b < 256; ++b)
      inverse[byte_alphabet()[static_cast<std::size_t>(b)]] = static_cast<std::int16_t>(b);
    return inverse;
  }();
  return code < bytes.size() ? bytes[code] : -1;
}

Bpe::Bpe(const Vocabulary& vocabulary, const std::vector<Merge>& merges, BpeRules rules)
    : vocabulary_(vocabulary), merges_(merges), rules_(rules) {
  fill_pairs();
  fill_symbols();
}

void Bpe::fill_pairs() {
  const std::size_t slots = std::bit_ceil(std::max<std::size_t>(merges_.size() * 2, 16));
  pairs_.assign(slots, {});
  shift_ = 64 - std::bit_width(slots - 1);
  for (std::size_t i = 0; i < merges_.size(); ++i) {
    const std::uint64_t key =
        static_cast<std::uint64_t>(merges_[i].left) << 32 | static_cast<std::uint32_t>(merges_[i].right);
    std::size_t slot = static_cast<std::size_t>(key * 0x9E3779B97F4A7C15 >> shift_);
    while (pairs_[slot].key != kEmpty && pairs_[slot].key != key) slot = (slot + 1) & (slots - 1);
    pairs_[slot] = {key, static_cast<std::uint32_t>(i)};
  }
}

inline std::uint32_t Bpe::rank(std::int32_t left, std::int32_t right) const {
  const std::uint64_t key = static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint32_t>(right);
  for (std::size_t slot = static_cast<std::size_t>(key * 0x9E3779B97F4A7C15 >> shift_);;
       slot = (slot + 1) & (pairs_.size() - 1)) {
    if (pairs_[slot].key == key) return pairs_[slot].rank;
    if (pairs_[slot].key == kEmpty) return kNoRank;
  }
}

void Bpe::fill_symbols() {
  bytes_.fill(kNoId);
  for (std::size_t b = 0; b < (rules_.byte_level ? 256 : 128); ++b) {
    std::string spelling;
    append_utf8(spelling, rules_.byte_level ? byte_alphabet()[b] : static_cast<char32_t>(b));
    bytes_[b] = vocabulary_.find(spelling);
  }
  fallback_.fill(kNoId);
  if (!rules_.byte_fallback) return;
  constexpr char kHex[] = "0123456789ABCDEF";
  for (std::size_t b = 0; b < 256; ++b)
    fallback_[b] = vocabulary_.find(std::string("<0x") + kHex[b >> 4] + kHex[b & 15] + ">");
}

bool Bpe::may_cut_before(std::string_view marker) const {
  if (rules_.byte_level || rules_.ignore_merges || vocabulary_.find(marker) == kNoId) return false;
  return std::none_of(merges_.begin(), merges_.end(), [&](const Merge& m) {
    return vocabulary_.text(m.right).starts_with(marker) && !vocabulary_.text(m.left).ends_with(marker);
  });
}

void Bpe::encode(std::string_view word, BpeScratch& scratch, std::vector<std::int32_t>& ids) const {
  if (word.empty()) return;
  Slot* slot = nullptr;
  std::array<std::uint64_t, 3> key{};
  if (word.size() <= kKeyBytes) {
    key = cache_key(word);
    slot = &scratch.cache[cache_slot(key)];
    if (slot->key == key) {
      ids.insert(ids.end(), slot->ids.data(), slot->ids.data() + slot->count);
      return;
    }
  }
  scratch.symbols.clear();
  if (const std::int32_t id = rules_.ignore_merges ? whole(word, scratch) : kNoId; id != kNoId) {
    scratch.symbols.push_back(id);
  } else {
    start(word, scratch.symbols);
    merge(scratch);
  }
  const std::vector<std::int32_t>& result = scratch.symbols;
  if (slot && result.size() <= kCachedIds) {
    slot->key = key;
    slot->count = static_cast<std::int32_t>(result.size());
    std::copy(result.begin(), result.end(), slot->ids.begin());
  }
  ids.insert(ids.end(), result.begin(), result.end());
}

Merge Bpe::last_merge(std::string_view word, BpeScratch& scratch) const {
  scratch.symbols.clear();
  start(word, scratch.symbols);
  const std::uint32_t last = merge(scratch);
  return last == kNoRank || scratch.symbols.size() != 1 ? Merge{kNoId, kNoId, kNoId} : merges_[last];
}

std::int32_t Bpe::whole(std::string_view word, BpeScratch& scratch) const {
  if (!rules_.byte_level) return vocabulary_.find(word);
  scratch.spelling.clear();
  for (const char c : word) append_utf8(scratch.spelling, byte_alphabet()[static_cast<unsigned char>(c)]);
  return vocabulary_.find(scratch.spelling);
}

// The characters as ids. An unknown id is held back until the next known character, so that neighbours can
// fuse; bytes of a fallback do not release it. Both as `tokenizers` does it.
void Bpe::start(std::string_view word, std::vector<std::int32_t>& symbols) const {
  if (rules_.byte_level &&
      std::none_of(bytes_.begin(), bytes_.end(), [](std::int32_t id) { return id == kNoId; }))
    return start_bytes(word, symbols);
  bool held = false;
  const auto release = [&] {
    if (held) symbols.push_back(rules_.unknown);
    held = false;
  };
  for (std::size_t at = 0; at < word.size();) {
    const auto byte = static_cast<unsigned char>(word[at]);
    int length = 1;
    std::int32_t id = bytes_[byte];
    if (!rules_.byte_level && byte >= 0x80) {
      code_point(word.data() + at, length);
      id = vocabulary_.find(word.substr(at, static_cast<std::size_t>(length)));
    }
    const std::string_view character = word.substr(at, static_cast<std::size_t>(length));
    at += static_cast<std::size_t>(length);
    if (id != kNoId) {
      release();
      symbols.push_back(id);
      continue;
    }
    const bool spell = rules_.byte_fallback && std::all_of(character.begin(), character.end(), [&](char c) {
                         return fallback_[static_cast<unsigned char>(c)] != kNoId;
                       });
    if (spell) {
      for (const char c : character) symbols.push_back(fallback_[static_cast<unsigned char>(c)]);
    } else if (rules_.unknown != kNoId) {
      if (!rules_.fuse_unknown) release();
      held = true;
    }
  }
  release();
}

void Bpe::start_bytes(std::string_view word, std::vector<std::int32_t>& symbols) const {
  symbols.resize(word.size());
  for (std::size_t i = 0; i < word.size(); ++i) symbols[i] = bytes_[static_cast<unsigned char>(word[i])];
}

std::uint32_t Bpe::merge(BpeScratch& scratch) const {
  return scratch.symbols.size() <= kShort ? merge_short(scratch.symbols, scratch.ranks) : merge_long(scratch);
}

std::uint32_t Bpe::merge_short(std::vector<std::int32_t>& symbols, std::vector<std::uint32_t>& ranks) const {
  std::size_t n = symbols.size();
  std::uint32_t last = kNoRank;
  if (n < 2) return last;
  ranks.resize(n);
  for (std::size_t i = 0; i + 1 < n; ++i) ranks[i] = rank(symbols[i], symbols[i + 1]);
  ranks[n - 1] = kNoRank;
  while (true) {
    const std::size_t at = static_cast<std::size_t>(
        std::min_element(ranks.begin(), ranks.begin() + static_cast<std::ptrdiff_t>(n)) - ranks.begin());
    if (ranks[at] == kNoRank) break;
    last = ranks[at];
    symbols[at] = merges_[last].result;
    --n;
    std::memmove(&symbols[at + 1], &symbols[at + 2], (n - at - 1) * sizeof symbols[0]);
    std::memmove(&ranks[at + 1], &ranks[at + 2], (n - at - 1) * sizeof ranks[0]);
    ranks[at] = at + 1 < n ? rank(symbols[at], symbols[at + 1]) : kNoRank;
    if (at > 0) ranks[at - 1] = rank(symbols[at - 1], symbols[at]);
  }
  symbols.resize(n);
  return last;
}

// Linked list and heap: n log n. A candidate is stale when the rank at its position has changed since.
std::uint32_t Bpe::merge_long(BpeScratch& scratch) const {
  std::vector<std::int32_t>& symbols = scratch.symbols;
  std::uint32_t last = kNoRank;
  const std::size_t n = symbols.size();
  scratch.ranks.resize(n);
  scratch.next.resize(n);
  scratch.previous.resize(n);
  scratch.heap.clear();
  const auto index = [](std::int32_t i) { return static_cast<std::size_t>(i); };
  const auto score = [&](std::size_t at) {  // sets the rank of the pair that starts here
    const std::int32_t right = scratch.next[at];
    scratch.ranks[at] = right < 0 ? kNoRank : rank(symbols[at], symbols[index(right)]);
    return scratch.ranks[at] != kNoRank;
  };
  for (std::size_t i = 0; i < n; ++i) {
    scratch.next[i] = i + 1 < n ? static_cast<std::int32_t>(i + 1) : -1;
    scratch.previous[i] = static_cast<std::int32_t>(i) - 1;
  }
  for (std::size_t i = 0; i < n; ++i)
    if (score(i)) scratch.heap.push_back({scratch.ranks[i], static_cast<std::uint32_t>(i)});
  std::make_heap(scratch.heap.begin(), scratch.heap.end());
  const auto push = [&](std::size_t at) {
    if (!score(at)) return;
    scratch.heap.push_back({scratch.ranks[at], static_cast<std::uint32_t>(at)});
    std::push_heap(scratch.heap.begin(), scratch.heap.end());
  };
  while (!scratch.heap.empty()) {
    const Candidate best = scratch.heap.front();
    std::pop_heap(scratch.heap.begin(), scratch.heap.end());
    scratch.heap.pop_back();
    const std::size_t at = best.position;
    if (scratch.ranks[at] != best.rank) continue;
    const std::size_t right = index(scratch.next[at]);
    last = best.rank;
    symbols[at] = merges_[last].result;
    scratch.ranks[right] = kNoRank;
    scratch.next[at] = scratch.next[right];
    if (scratch.next[at] >= 0) scratch.previous[index(scratch.next[at])] = static_cast<std::int32_t>(at);
    push(at);
    if (scratch.previous[at] >= 0) push(index(scratch.previous[at]));
  }
  std::size_t kept = 0;
  for (std::int32_t i = 0; i >= 0; i = scratch.next[index(i)]) symbols[kept++] = symbols[index(i)];
  symbols.resize(kept);
  return last;
}

}  // namespace slmc::text
