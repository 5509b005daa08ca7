#pragma once
// Text to token ids and back: byte-level BPE (GPT-2, Llama-3, Qwen, SmolLM) and SentencePiece-style BPE with
// byte fallback (Llama-2), from tokenizer.json or from GGUF metadata. Ids equal those of the `tokenizers`
// package (scripts/goldens/check_tokenizers.py).
//
//   Tokenizer t = Tokenizer::from_file("model/tokenizer.json");
//   t.decode(t.encode("Hello world")) == "Hello world"
//
// Read: the model BPE; normalizers NFC, Prepend, Replace; pre-tokenizers ByteLevel, Split, Digits, Metaspace;
// decoders ByteLevel, Metaspace, Replace, ByteFallback, Fuse, Strip; Sequences of each. Everything else is
// refused by name. Not applied: truncation, padding, dropout and post-processors (special().add_bos says what
// a post-processor would add).
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/json.h"
#include "io/gguf.h"

namespace slmc::text {

class Bpe;      // bpe.h
struct Parts;   // parts.h

// What tokenizer_config.json, the post-processor or GGUF keys say about single tokens.
struct SpecialTokens {
  std::optional<std::int32_t> bos, eos, unknown, padding;
  bool add_bos = false, add_eos = false;  // whether a model's prompts start and end with them
  std::string chat_template;              // Jinja; "" when there is none
};

// A token that a cut must leave, and what it is needed for: "the byte 0x41", "the end of a text".
struct NeededToken {
  std::int32_t id = 0;
  std::string why;
};
// The two tokens that the last merge joins when a token's own text is encoded; -1 when the token is one symbol or its text becomes others.
struct TokenParts {
  std::int32_t left = -1, right = -1;
};

class Tokenizer {
 public:
  // tokenizer.json of Hugging Face. Error(Data) on corrupt input, Error(Unsupported) names the unknown
  // component.
  static Tokenizer from_json(std::string_view json, std::string file);
  // Also reads what stands beside it: tokenizer_config.json, chat_template.jinja, and the special ids of
  // config.json.
  static Tokenizer from_file(const std::filesystem::path& tokenizer_json);
  // tokenizer.ggml.* keys ("gpt2" and "llama" models). `file` is for messages.
  static Tokenizer from_gguf(const io::GgufMetadata& metadata, std::string file);

  // No BOS or EOS is added. Added tokens in the text are recognised unless `plain`. Invalid UTF-8 is replaced
  // by U+FFFD.
  std::vector<std::int32_t> encode(std::string_view text, bool plain = false) const;
  // Always valid UTF-8. Ids without a token (rows that pad an embedding) are left out.
  std::string decode(std::span<const std::int32_t> ids, bool skip_special = false) const;
  std::string piece(std::int32_t id) const;  // bytes that one token stands for; Error(Data) when it has none
  bool has(std::int32_t id) const;           // whether the id is a token
  std::int64_t size() const;                 // largest id + 1
  std::optional<std::int32_t> id_of(std::string_view token) const;  // as the file spells it: "Ġthe", "▁the"
  const SpecialTokens& special() const;
  std::optional<std::int32_t> bos() const { return special().bos; }
  std::optional<std::int32_t> eos() const { return special().eos; }
  // The token between documents: <|endoftext|>, <|end_of_text|>, </s> or <eos>, the first that exists; else
  // eos.
  std::optional<std::int32_t> end_of_text() const;
  std::string content_hash() const;  // vocabulary, merges, rules: equal hashes give equal ids

  // Cuts. `kept` lists ids in their new order; ids without a token, and a second mention, become rows without one.
  // (C1) decode(encode(x)) is what it was, for texts without added tokens that go: every byte keeps a way to be spelled.
  // (C2) a text that was one token still is, when that token stays: its parts stay, and theirs.
  // (C3) special ids, post-processor and chat template find their tokens.
  std::vector<NeededToken> needed() const;        // by (C1) and (C3); an id may come twice, for two reasons
  std::vector<TokenParts> token_parts() const;    // by id of the vocabulary, for (C2)
  std::vector<std::string> cut_problems(const std::vector<std::int64_t>& kept) const;  // sentences; the first eight, and how many more
  Tokenizer cut(const std::vector<std::int64_t>& kept) const;                          // Error(Recipe) with the problems

  // tokenizer.json text that gives the same ids; kept verbatim when it was the source, made from GGUF
  // metadata otherwise.
  std::string to_json() const;
  // tokenizer_config.json for a tokenizer that came without one: class, special tokens, chat template.
  Json config() const;
  // The tokenizer.ggml.* pairs and tokenizer.chat_template that llama.cpp needs. `rows` of the embedding: ids
  // from size() on become unused "[PAD id]" tokens; 0 means size(). Error(Unsupported) when llama.cpp has no
  // rules for this tokenizer.
  io::GgufMetadata to_gguf(std::int64_t rows = 0) const;

 private:
  struct State;
  explicit Tokenizer(std::shared_ptr<const State> state);
  const Parts& parts() const;
  const Bpe& bpe() const;
  std::shared_ptr<const State> state_;  // immutable; cheap to copy, safe to share between threads
};

// The tokens, scores, types and merges of GGUF metadata that such a cut leaves; other keys stay, ids among them. Rows without a token are
// unused "[PAD id]" tokens.
io::GgufMetadata cut_metadata(io::GgufMetadata metadata, const std::vector<std::int64_t>& kept);

}  // namespace slmc::text
