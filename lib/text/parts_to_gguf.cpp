// GGUF's tokenizer.ggml.* keys, written.
#include <fmt/format.h>

#include <algorithm>

#include "text/parts.h"
#include "text/pre_rules.h"
#include "text/sentencepiece.h"

namespace slmc::text {

io::GgufMetadata gguf_from_parts(const Parts& parts, std::int64_t rows) {
  std::int64_t size = parts.vocabulary.size();
  for (const AddedToken& token : parts.added) size = std::max<std::int64_t>(size, token.id + 1);
  if (rows == 0) rows = size;
  if (rows < size || rows > kMostIds)
    throw Error(
        ErrorKind::Data,
        fmt::format("the rows of an embedding must be at least {}, the size of its tokenizer, but are {}",
                    size, rows));
  std::vector<std::string> tokens(static_cast<std::size_t>(rows));
  std::vector<std::int64_t> types(static_cast<std::size_t>(rows), kUnused);
  const bool bytes = parts.rules.byte_level;
  for (std::int32_t id = 0; id < rows; ++id) {
    const auto i = static_cast<std::size_t>(id);
    tokens[i] =
        parts.vocabulary.has(id) ? std::string(parts.vocabulary.text(id)) : fmt::format("[PAD{}]", id);
    if (!parts.vocabulary.has(id)) continue;
    const bool is_byte =
        !bytes && tokens[i].size() == 6 && tokens[i].starts_with("<0x") && tokens[i].ends_with('>');
    types[i] = is_byte ? kByte : kNormal;
  }
  for (const AddedToken& token : parts.added) {
    tokens[static_cast<std::size_t>(token.id)] = token.content;
    types[static_cast<std::size_t>(token.id)] = token.special ? kControl : kUser;
  }
  if (!bytes && parts.rules.unknown != kNoId) types[static_cast<std::size_t>(parts.rules.unknown)] = kUnknown;

  io::GgufMetadata out;
  const auto put = [&](const char* key, io::GgufValue value) {
    out.emplace_back(std::string("tokenizer.ggml.") + key, std::move(value));
  };
  put("model", io::GgufValue::text(bytes ? "gpt2" : "llama"));
  put("pre", io::GgufValue::text(bytes ? pre_name(parts) : "default"));
  if (!bytes) {
    put("add_space_prefix", io::GgufValue::boolean(has_space_prefix(parts)));
    put("scores", io::GgufValue::f32s(scores_of(parts.vocabulary, parts.merges, types)));
  }
  put("tokens", io::GgufValue::texts(std::move(tokens)));
  put("token_type", io::GgufValue::i32s(std::move(types)));
  if (bytes) {
    std::vector<std::string> merges;
    for (const Merge& merge : parts.merges) {
      const std::string_view left = parts.vocabulary.text(merge.left);
      if (left.find(' ', 1) != left.npos)
        throw Error(ErrorKind::Unsupported,
                    fmt::format("a token of a GGUF's merge must not hold a blank, but '{}' does", left));
      merges.push_back(std::string(left) + " " + std::string(parts.vocabulary.text(merge.right)));
    }
    put("merges", io::GgufValue::texts(std::move(merges)));
  }
  for (const auto& [name, id] : {std::pair("bos_token_id", parts.special.bos),
                                 {"eos_token_id", parts.special.eos},
                                 {"unknown_token_id", parts.special.unknown},
                                 {"padding_token_id", parts.special.padding}})
    if (id) put(name, io::GgufValue::u32(static_cast<std::uint32_t>(*id)));
  put("add_bos_token", io::GgufValue::boolean(parts.special.add_bos));
  put("add_eos_token", io::GgufValue::boolean(parts.special.add_eos));
  if (!parts.special.chat_template.empty())
    out.emplace_back("tokenizer.chat_template", io::GgufValue::text(parts.special.chat_template));
  return out;
}

}  // namespace slmc::text
