#pragma once
// Regular expressions of tokenizer.json. They are written for Oniguruma with Ruby syntax; `translate` says
// the same in PCRE2's words, or refuses what would mean something else there.
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace slmc::text {

struct Span {
  std::size_t begin = 0, end = 0;  // bytes
  bool operator==(const Span&) const = default;
};

// Error(Unsupported) names the construct. Exposed for tests.
std::string translate_pattern(std::string_view oniguruma);

class Regex {
 public:
  explicit Regex(std::string_view pattern);     // Error(Data) when it does not compile
  static Regex literal(std::string_view text);  // matches exactly this text
  // All matches in valid UTF-8 `text`, left to right, disjoint, appended to `out`; an empty one right after
  // another match is left out. Error(Data) when matching needs more than 1 million steps or 64 MB.
  void find_all(std::string_view text, std::vector<Span>& out) const;

 private:
  struct Code;
  explicit Regex(std::shared_ptr<const Code> code);
  std::shared_ptr<const Code> code_;  // read-only: safe to share between threads
};

}  // namespace slmc::text
