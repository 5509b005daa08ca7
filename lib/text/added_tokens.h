#pragma once
// Tokens that are found in the text itself, before it is cut into words: <|endoftext|>, <s>, runs of blanks.
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/normalizer.h"
#include "text/vocabulary.h"

namespace slmc::text {

struct AddedToken {
  std::int32_t id = 0;
  std::string content;
  bool single_word = false;             // not inside a longer word
  bool lstrip = false, rstrip = false;  // takes the white space beside it along
  bool normalized = true;  // found after the normalizer, in its normalized form; otherwise before
  bool special = false;    // left out by decode(skip_special)
};

// A piece of text between added tokens, or an added token.
struct Part {
  std::int32_t id = kNoId;  // kNoId: text
  Span span;
};

// Finds the leftmost of the longest of a set of tokens; matches do not overlap.
class TokenFinder {
 public:
  TokenFinder() = default;
  void add(std::string_view text,
           const AddedToken& token);  // of two with one text the later wins; empty ones are left out
  bool empty() const { return nodes_.empty(); }
  void split(std::string_view text, std::vector<Part>& parts) const;  // appends; valid UTF-8

 private:
  struct Node {
    std::int32_t child = -1, sibling = -1, token = -1;
    char byte = 0;
  };
  std::int32_t child(std::int32_t node, char byte) const;
  std::int32_t longest(std::string_view text, std::size_t at, std::size_t& length) const;
  std::vector<Node> nodes_;
  std::array<std::int32_t, 256> roots_{};
  std::vector<AddedToken> tokens_;
};

}  // namespace slmc::text
