#pragma once
// The `normalizer` of tokenizer.json: null, NFC, Prepend, Replace, and a Sequence of them.
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "text/regex.h"

namespace slmc::text {

// Text or regular expression, as {"String": "..."} or {"Regex": "..."}; Error(Data) when it is neither or
// empty.
struct Pattern {
  std::string literal;  // used when `regex` is not set
  std::optional<Regex> regex;
  static Pattern from_json(const Json& json, const std::string& file, const std::string& path);
  void find_all(std::string_view text,
                std::vector<Span>& out) const;  // appends disjoint matches, left to right
};
// No step may make text longer than `most` bytes: a file could ask for 2^n of them in n lines. Error(Data).
void require_length(std::size_t bytes, std::size_t most);
inline std::size_t most_bytes(std::size_t given) {
  return (std::size_t{1} << 16) + 16 * given;
}  // usual: a blank becomes 3 bytes
// Real Sequences have a handful of steps; Error(Data) above 64.
void require_few_steps(std::size_t steps, const std::string& file, const std::string& path);
void replace_all(std::string& text, const Pattern& pattern, std::string_view content, std::size_t most);

class Normalizer {
 public:
  Normalizer() = default;  // changes nothing
  static Normalizer from_json(const Json& json, const std::string& file);
  bool empty() const { return steps_.empty(); }
  void apply(std::string& text) const;  // valid UTF-8 stays valid UTF-8

 private:
  struct Step {
    enum Kind { Nfc, Prepend, Replace } kind;
    Pattern pattern;      // Replace
    std::string content;  // Prepend, Replace
  };
  void add(const Json& json, const std::string& file, const std::string& path);
  std::vector<Step> steps_;
};

}  // namespace slmc::text
