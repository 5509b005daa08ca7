#pragma once
// Tokens by id and ids by token. Ids may have gaps. Texts lie in one block of memory: 16 bytes of index per
// token.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace slmc::text {

inline constexpr std::int32_t kNoId = -1;
inline constexpr std::int32_t kMostIds =
    1 << 20;  // the largest known BPE vocabularies have 2^18; refused before allocation

// A fast 64-bit hash for tables in memory; never stored.
std::uint64_t table_hash(std::string_view text);

class Vocabulary {
 public:
  // id in [0, kMostIds). Error(Data) when the id or the text is taken.
  void add(std::string_view text, std::int32_t id);
  std::int32_t find(std::string_view text) const;  // kNoId when absent
  bool has(std::int32_t id) const {
    return id >= 0 && id < size() && tokens_[static_cast<std::size_t>(id)].offset != kAbsent;
  }
  std::string_view text(std::int32_t id) const;                                    // "" when absent
  std::int32_t size() const { return static_cast<std::int32_t>(tokens_.size()); }  // largest id + 1
  std::int32_t count() const { return count_; }

 private:
  static constexpr std::uint32_t kAbsent = 0xFFFFFFFF;
  struct Token {
    std::uint32_t offset = kAbsent, length = 0;
  };
  void grow();
  std::string bytes_;
  std::vector<Token> tokens_;        // by id
  std::vector<std::int32_t> slots_;  // open addressing; a power of two, at most half full
  std::int32_t count_ = 0;
};

}  // namespace slmc::text
