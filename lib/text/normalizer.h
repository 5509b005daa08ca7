#pragma once
// The `normalizer` of tokenizer.json: null, NFC, Prepend, Replace, and a Sequence of them.
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "text/regex.h"

namespace slmc::text {

// Text or regular expression, as {"String": "..."} or {"Regex": "..."}; Error(Data) when it is neither or empty.
struct Pattern {
  std::string literal;                   // used when `regex` is not set
  std::optional<Regex> regex;
  static Pattern from_json(const Json& json, const std::string& file, const std::string& path);
  void find_all(std::string_view text, std::vector<Span>& out) const;   // appends disjoint matches, left to right
};
void replace_all(std::string& text, const Pattern& pattern, std::string_view content);

class Normalizer {
 public:
  Normalizer() = default;                // changes nothing
  static Normalizer from_json(const Json& json, const std::string& file);
  bool empty() const { return steps_.empty(); }
  void apply(std::string& text) const;   // valid UTF-8 stays valid UTF-8

 private:
  struct Step {
    enum Kind { Nfc, Prepend, Replace } kind;
    Pattern pattern;                     // Replace
    std::string content;                 // Prepend, Replace
  };
  void add(const Json& json, const std::string& file, const std::string& path);
  std::vector<Step> steps_;
};

}  // namespace slmc::text
