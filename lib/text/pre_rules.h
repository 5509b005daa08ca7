#pragma once
// The rules that llama.cpp keeps under a name (tokenizer.ggml.pre, or the model "llama"), spelled out as the
// components of tokenizer.json that give the same words. Facts: llama.cpp, src/llama-vocab.cpp. Internal to
// lib/text.
#include <memory>
#include <string>
#include <vector>

#include "core/json.h"
#include "text/parts.h"

namespace slmc::text {

struct NamedRules {
  std::shared_ptr<const Json> normalizer, pre_tokenizer;
  bool ignore_merges = false;
};
NamedRules byte_level_rules(const std::string& pre,
                            const std::string& file);  // Error(Unsupported) lists the known names
// The name whose rules a byte-level tokenizer has; Error(Unsupported) when there is none.
std::string pre_name(const Parts& parts);

// SentencePiece marks blanks with U+2581, and puts one in front of a text with `prefix`.
inline constexpr const char* kBlankMark = "\u2581";
Json sentencepiece_normalizer(bool prefix);
// Whether text gets a blank in front; Error(Unsupported) when llama.cpp would see other words.
bool has_space_prefix(const Parts& parts);

// {"type": "Sequence", key: parts}, or the only part.
Json json_sequence(const char* key, std::vector<Json> parts);

}  // namespace slmc::text
