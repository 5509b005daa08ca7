#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cctype>
#include <cstdint>

#include "core/error.h"
#include "text/unicode.h"

namespace slmc::text {
namespace {

constexpr std::uint32_t kMatchSteps = 1'000'000;
constexpr std::uint32_t kHeapKilobytes = 64 * 1024;
constexpr std::size_t kJitStackBytes = 4 * 1024 * 1024;

// Oniguruma's \w in UTF-8; \s is the property White_Space (PCRE2's own \s would add U+180E).
constexpr std::string_view kWordClass = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";

[[noreturn]] void refuse(std::string_view construct) {
  throw Error(ErrorKind::Unsupported,
              "the pattern of a tokenizer must use constructs that PCRE2 shares, but has '" +
                  std::string(construct) + "'");
}

class Translator {
 public:
  explicit Translator(std::string_view in) : in_(in) {}

  std::string run() {
    while (at_ < in_.size()) {
      switch (in_[at_]) {
        case '\\': escape(false); break;
        case '[': char_class(); break;
        case '(': group(); break;
        case '{': interval(); break;
        default: out_ += in_[at_++];
      }
    }
    return std::move(out_);
  }

 private:
  char peek(std::size_t ahead) const { return at_ + ahead < in_.size() ? in_[at_ + ahead] : '\0'; }
  void copy(std::size_t bytes) {
    out_.append(in_.substr(at_, bytes));
    at_ += bytes;
  }

  void escape(bool in_class) {
    const char c = peek(1);
    const auto put = [&](std::string_view text) { out_ += text, at_ += 2; };
    if (c == 's') return put(R"(\p{White_Space})");
    if (c == 'S') return put(R"(\P{White_Space})");
    if (c == 'w') return put(in_class ? std::string(kWordClass) : "[" + std::string(kWordClass) + "]");
    if (c == 'W' && !in_class) return put("[^" + std::string(kWordClass) + "]");
    if (c == 'v') return put(R"(\x0b)");
    if (c == 'u') {  // \uHHHH
      if (at_ + 6 > in_.size()) refuse(in_.substr(at_));
      out_ += "\\x{" + std::string(in_.substr(at_ + 2, 4)) + "}";
      at_ += 6;
      return;
    }
    if (c == 'p' || c == 'P' || c == 'x') {
      if (peek(2) != '{') {
        if (c != 'x' || !std::isxdigit(static_cast<unsigned char>(peek(2)))) refuse(in_.substr(at_, 3));
        return copy(2);
      }
      const std::size_t close = in_.find('}', at_);
      if (close == in_.npos) refuse(in_.substr(at_));
      return copy(close + 1 - at_);
    }
    const bool plain = std::string_view("dDnrtfae").find(c) != std::string_view::npos && c;
    const bool anchor = !in_class && (c == 'A' || c == 'z');
    const auto byte = static_cast<unsigned char>(c);
    if (plain || anchor || (byte < 0x80 && std::ispunct(byte)) || c == ' ') return copy(2);
    refuse(in_.substr(at_, 2));
  }

  void char_class() {
    copy(1);
    if (peek(0) == '^') copy(1);
    if (peek(0) == ']') refuse("[]");  // a literal ] there in PCRE2, an error in Oniguruma
    while (at_ < in_.size() && in_[at_] != ']') {
      if (in_[at_] == '\\')
        escape(true);
      else if (in_[at_] == '[')
        refuse("[ inside a class");  // a nested class in Oniguruma
      else if (in_[at_] == '&' && peek(1) == '&')
        refuse("&&");
      else
        copy(1);
    }
    if (at_ < in_.size()) copy(1);
  }

  void group() {
    if (peek(1) != '?') return copy(1);
    for (const std::string_view known :
         {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:", "(?i)", "(?-i:", "(?-i)"})
      if (in_.substr(at_, known.size()) == known) return copy(known.size());
    refuse(in_.substr(at_, 4));
  }

  void interval() {  // {n,m}+ repeats greedily there, is possessive in PCRE2
    const std::size_t close = in_.find('}', at_);
    if (close == in_.npos) refuse("{ without }");
    if (close + 1 < in_.size() && in_[close + 1] == '+') refuse(in_.substr(at_, close + 2 - at_));
    copy(close + 1 - at_);
  }

  std::string_view in_;
  std::size_t at_ = 0;
  std::string out_;
};

struct MatchState {  // what matching needs, once per thread
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(32 * 1024, kJitStackBytes, nullptr);
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  MatchState() {
    if (!context || !data) throw Error(ErrorKind::Resource, "the memory for a pattern match can't be had");
    pcre2_set_match_limit(context, kMatchSteps);
    pcre2_set_heap_limit(context, kHeapKilobytes);
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  MatchState(const MatchState&) = delete;
  MatchState& operator=(const MatchState&) = delete;
  ~MatchState() {
    pcre2_match_data_free(data);
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
  }
};

std::string pcre2_message(int code) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

}  // namespace

struct Regex::Code {
  pcre2_code* code = nullptr;
  std::string pattern;
  Code(const std::string& translated, std::string source) : pattern(std::move(source)) {
    pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(context, 100);
    int error = 0;
    PCRE2_SIZE offset = 0;
    code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                         PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &offset,
                         context);
    pcre2_compile_context_free(context);
    if (!code)
      throw Error(ErrorKind::Data, "the pattern '" + pattern + "' must be a regular expression, but " +
                                       pcre2_message(error) + " at byte " + std::to_string(offset) + " of '" +
                                       translated + "'");
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // without it, matching is only slower
  }
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  ~Code() { pcre2_code_free(code); }
};

std::string translate_pattern(std::string_view oniguruma) {
  if (!is_utf8(oniguruma) || oniguruma.size() > 65536)
    throw Error(ErrorKind::Data,
                "the pattern of a tokenizer must be UTF-8 of at most 65536 bytes, but is not");
  return Translator(oniguruma).run();
}

Regex::Regex(std::string_view pattern)
    : code_(std::make_shared<const Code>(translate_pattern(pattern), std::string(pattern))) {}
Regex::Regex(std::shared_ptr<const Code> code) : code_(std::move(code)) {}

Regex Regex::literal(std::string_view text) {
  std::string quoted;
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x80 && std::ispunct(static_cast<unsigned char>(c))) quoted += '\\';
    quoted += c;
  }
  return Regex(std::make_shared<const Code>(quoted, std::string(text)));
}

void Regex::find_all(std::string_view text, std::vector<Span>& out) const {
  static thread_local MatchState state;
  std::size_t from = 0, last_end = static_cast<std::size_t>(-1);
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  while (from <= text.size()) {
    const int found =
        pcre2_match(code_->code, subject, text.size(), from, PCRE2_NO_UTF_CHECK, state.data, state.context);
    if (found == PCRE2_ERROR_NOMATCH) return;
    if (found < 0)
      throw Error(ErrorKind::Data, "the pattern '" + code_->pattern + "' must match within " +
                                       std::to_string(kMatchSteps) + " steps, but " + pcre2_message(found));
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(state.data);
    const Span match{bounds[0], bounds[1]};
    if (match.begin == match.end && match.end == last_end) {  // go on behind the next character
      int bytes = 1;
      if (from < text.size()) code_point(text.data() + from, bytes);
      from += static_cast<std::size_t>(bytes);
      continue;
    }
    out.push_back(match);
    from = last_end = match.end;
  }
}

}  // namespace slmc::text
