// The rows of GGUF's tokenizer.ggml.* lists that a cut keeps; everything else in the metadata stays as it is.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "text/cut.h"
#include "text/sentencepiece.h"

namespace slmc::text {
namespace {

io::GgufValue* find(io::GgufMetadata& metadata, std::string_view key) {
  const auto at = std::find_if(metadata.begin(), metadata.end(), [&](const auto& pair) { return pair.first == key; });
  return at == metadata.end() ? nullptr : &at->second;
}

// Entries `rows` of a list; -1 and entries beyond its end become `other`.
template <typename T>
void gather(std::vector<T>& list, const std::vector<std::int64_t>& rows, const T& other) {
  std::vector<T> out;
  out.reserve(rows.size());
  for (const std::int64_t row : rows) out.push_back(row >= 0 && row < static_cast<std::int64_t>(list.size()) ? list[static_cast<std::size_t>(row)] : other);
  list = std::move(out);
}

void gather(io::GgufValue& value, const std::vector<std::int64_t>& rows, std::int64_t other) {
  if (auto* s = std::get_if<std::vector<std::int64_t>>(&value.value)) gather(*s, rows, other);
  if (auto* u = std::get_if<std::vector<std::uint64_t>>(&value.value)) gather(*u, rows, static_cast<std::uint64_t>(other));
  if (auto* d = std::get_if<std::vector<double>>(&value.value)) gather(*d, rows, static_cast<double>(other));
}

void keep_merges(std::vector<std::string>& merges, const std::vector<std::string>& tokens) {
  const std::set<std::string_view> there(tokens.begin(), tokens.end());
  std::erase_if(merges, [&](const std::string& merge) {
    const std::size_t blank = merge.find(' ', 1);
    if (blank == merge.npos) return true;
    const std::string_view left = std::string_view(merge).substr(0, blank), right = std::string_view(merge).substr(blank + 1);
    return !there.contains(left) || !there.contains(right) || !there.contains(std::string(left) + std::string(right));
  });
}

}  // namespace

io::GgufMetadata cut_metadata(io::GgufMetadata metadata, const std::vector<std::int64_t>& kept) {
  io::GgufValue* value = find(metadata, "tokenizer.ggml.tokens");
  auto* tokens = value ? std::get_if<std::vector<std::string>>(&value->value) : nullptr;
  if (!tokens) return metadata;
  const auto size = static_cast<std::int64_t>(tokens->size());
  const std::vector<std::int32_t> ids = new_ids(kept, size);
  std::vector<std::int64_t> rows(kept.size(), -1);  // a second mention has no token
  for (std::int64_t id = 0; id < size; ++id)
    if (ids[static_cast<std::size_t>(id)] != kNoId) rows[static_cast<std::size_t>(ids[static_cast<std::size_t>(id)])] = id;
  gather(*tokens, rows, std::string());
  for (std::size_t i = 0; i < rows.size(); ++i)
    if (rows[i] < 0) (*tokens)[i] = fmt::format("[PAD{}]", i);
  if (auto* merges = find(metadata, "tokenizer.ggml.merges"))
    if (auto* list = std::get_if<std::vector<std::string>>(&merges->value)) keep_merges(*list, *tokens);
  if (auto* scores = find(metadata, "tokenizer.ggml.scores")) gather(*scores, rows, 0);
  if (auto* types = find(metadata, "tokenizer.ggml.token_type")) {
    gather(*types, rows, kUnused);
  } else if (std::find(rows.begin(), rows.end(), -1) != rows.end()) {
    std::vector<std::int64_t> made(rows.size());
    std::transform(rows.begin(), rows.end(), made.begin(), [](std::int64_t row) { return row < 0 ? kUnused : kNormal; });
    metadata.emplace_back("tokenizer.ggml.token_type", io::GgufValue::i32s(std::move(made)));
  }
  return metadata;
}

}  // namespace slmc::text
