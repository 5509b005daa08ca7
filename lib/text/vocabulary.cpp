#include "text/vocabulary.h"

#include <cstring>

#include "core/error.h"

namespace slmc::text {

std::uint64_t table_hash(std::string_view text) {
  constexpr std::uint64_t kMix = 0x9E3779B97F4A7C15;
  std::uint64_t h = text.size() * kMix;
  const char* p = text.data();
  std::size_t left = text.size();
  for (; left > 0;) {
    std::uint64_t word = 0;
    const std::size_t take = left < 8 ? left : 8;
    std::memcpy(&word, p, take);
    h = (h ^ word) * kMix;
    h ^= h >> 32;
    p += take;
    left -= take;
  }
  return h * kMix;
}

void Vocabulary::add(std::string_view text, std::int32_t id) {
  if (id < 0 || id >= kMostIds)
    throw Error(ErrorKind::Data, "the id of a token must be in [0, " + std::to_string(kMostIds) +
                                     "), but is " + std::to_string(id));
  if (bytes_.size() + text.size() >= kAbsent)
    throw Error(ErrorKind::Data, "a vocabulary must be smaller than 4 GB, but is not");
  if (has(id))
    throw Error(ErrorKind::Data, "the id " + std::to_string(id) + " must belong to one token, but has '" +
                                     std::string(this->text(id)) + "' and '" + std::string(text) + "'");
  if (static_cast<std::size_t>(count_ + 1) * 2 > slots_.size()) grow();
  std::size_t slot = table_hash(text) & (slots_.size() - 1);
  for (; slots_[slot] != kNoId; slot = (slot + 1) & (slots_.size() - 1))
    if (this->text(slots_[slot]) == text)
      throw Error(ErrorKind::Data, "the token '" + std::string(text) + "' must have one id, but has " +
                                       std::to_string(slots_[slot]) + " and " + std::to_string(id));
  slots_[slot] = id;
  if (id >= size()) tokens_.resize(static_cast<std::size_t>(id) + 1);
  tokens_[static_cast<std::size_t>(id)] = {static_cast<std::uint32_t>(bytes_.size()),
                                           static_cast<std::uint32_t>(text.size())};
  bytes_ += text;
  ++count_;
}

std::int32_t Vocabulary::find(std::string_view text) const {
  if (slots_.empty()) return kNoId;
  for (std::size_t slot = table_hash(text) & (slots_.size() - 1);; slot = (slot + 1) & (slots_.size() - 1))
    if (slots_[slot] == kNoId || this->text(slots_[slot]) == text) return slots_[slot];
}

std::string_view Vocabulary::text(std::int32_t id) const {
  if (!has(id)) return {};
  const Token& token = tokens_[static_cast<std::size_t>(id)];
  return std::string_view(bytes_).substr(token.offset, token.length);
}

void Vocabulary::grow() {
  const std::vector<std::int32_t> old = std::move(slots_);
  slots_.assign(old.empty() ? 1024 : old.size() * 2, kNoId);
  for (const std::int32_t id : old) {
    if (id == kNoId) continue;
    std::size_t slot = table_hash(text(id)) & (slots_.size() - 1);
    while (slots_[slot] != kNoId) slot = (slot + 1) & (slots_.size() - 1);
    slots_[slot] = id;
  }
}

}  // namespace slmc::text
