#pragma once
// The `decoder` of tokenizer.json: tokens back to text. Null, ByteLevel, Metaspace, Replace, ByteFallback,
// Fuse, Strip and a Sequence of them.
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "text/normalizer.h"

namespace slmc::text {

class Decoder {
 public:
  Decoder() = default;  // tokens joined by blanks, as `tokenizers` does
  static Decoder from_json(const Json& json, const std::string& file);
  std::string decode(std::vector<std::string> tokens) const;  // valid UTF-8: what is not becomes U+FFFD
  // The bytes that one token stands for, without what a decoder does at the ends of a text.
  std::string piece(std::string_view token) const;

 private:
  struct Step {
    enum Kind { ByteLevel, Metaspace, Replace, ByteFallback, Fuse, Strip } kind = Fuse;
    Pattern pattern;                  // Replace
    std::string content;              // Replace; Strip: one character; Metaspace: the marker
    bool prefix = false;              // Metaspace: the first marker of a text is dropped
    std::size_t start = 0, stop = 0;  // Strip: most characters at the ends of each token
  };
  void add(const Json& json, const std::string& file, const std::string& path);
  static void apply(const Step& step, std::vector<std::string>& tokens, std::size_t most);
  std::vector<Step> steps_;
};

}  // namespace slmc::text
