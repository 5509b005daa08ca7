#pragma once
// Text to token ids and back: byte-level BPE (GPT-2, Llama-3, SmolLM) and SentencePiece-style BPE with byte fallback
// (Llama-2), from tokenizer.json or from GGUF metadata. Ids equal those of the `tokenizers` package (tests/golden).
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "io/gguf.h"

namespace slmc::text {

class Tokenizer {
 public:
  // tokenizer.json of Hugging Face. Error(Data) on corrupt input, Error(Unsupported) names the unknown component.
  static Tokenizer from_json(std::string_view json, std::string file);
  static Tokenizer from_file(const std::filesystem::path& tokenizer_json);
  // tokenizer.ggml.* keys ("gpt2" and "llama" models). `file` is for messages.
  static Tokenizer from_gguf(const io::GgufMetadata& metadata, std::string file);

  // No BOS or EOS is added. Added tokens in the text are recognised unless `plain`. Invalid UTF-8 is replaced by U+FFFD.
  std::vector<std::int32_t> encode(std::string_view text, bool plain = false) const;
  std::string decode(std::span<const std::int32_t> ids, bool skip_special = false) const;
  std::string piece(std::int32_t id) const;              // bytes of one token; Error(Data) when out of range
  std::int64_t size() const;                             // largest id + 1
  std::optional<std::int32_t> id_of(std::string_view token) const;
  std::optional<std::int32_t> bos() const;
  std::optional<std::int32_t> eos() const;
  std::string content_hash() const;                      // vocabulary, merges, rules: equal text gives equal ids

  // tokenizer.json text that gives the same ids; kept verbatim when it was the source, made from GGUF metadata otherwise.
  std::string to_json() const;
  // The tokenizer.ggml.* pairs that llama.cpp needs. Error(Unsupported) when no tokenizer.ggml.pre of llama.cpp fits.
  io::GgufMetadata to_gguf() const;

 private:
  struct State;
  explicit Tokenizer(std::shared_ptr<const State> state);
  std::shared_ptr<const State> state_;                   // immutable; cheap to copy, safe to share between threads
};

}  // namespace slmc::text
