#pragma once
// The two splitting patterns of nearly all byte-level tokenizers, written by hand: five to ten times faster
// than a regular expression engine. tests/unit/text_test.cpp holds each against the pattern itself in PCRE2.
//
//   GPT-2    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//   Llama-3  (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|
//   ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ Qwen-2   as Llama-3 with \p{N} for \p{N}{1,3}
#include <cstddef>
#include <string_view>

#include "text/regex.h"
#include "text/unicode.h"

namespace slmc::text {

inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// Walks valid UTF-8. `kind()` is the class of the current character, 0 at the end (and for punctuation: ask
// `done`).
class Cursor {
 public:
  Cursor(std::string_view text, std::size_t at)
      : begin_(text.data()), p_(begin_ + at), end_(begin_ + text.size()) {
    look();
  }
  bool done() const { return p_ == end_; }
  std::size_t at() const { return static_cast<std::size_t>(p_ - begin_); }
  char byte() const { return *p_; }
  unsigned kind() const { return kind_; }
  bool letter() const { return kind_ & kLetter; }
  bool number() const { return kind_ & kNumber; }
  bool space() const { return kind_ & kSpace; }
  bool newline() const { return !done() && (*p_ == '\n' || *p_ == '\r'); }
  bool other() const { return !done() && (kind_ & (kLetter | kNumber | kSpace)) == 0; }
  void next() { p_ += bytes_, look(); }
  template <typename Test>
  void skip(Test test) {
    while (!done() && test(*this)) next();
  }

 private:
  void look() {
    kind_ = 0;
    if (p_ == end_) return;
    if (static_cast<unsigned char>(*p_) < 0x80) {
      bytes_ = 1;
      kind_ = table_[static_cast<unsigned char>(*p_)];
    } else {
      kind_ = table_[code_point(p_, bytes_)];
    }
  }
  const char *begin_, *p_, *end_;
  const std::uint8_t* table_ = class_table().data();
  int bytes_ = 0;
  unsigned kind_ = 0;
};

// Bytes of the contraction at `at` (an apostrophe), 0 when there is none. Caseless also accepts U+017F, which
// folds to s.
inline std::size_t contraction(std::string_view text, std::size_t at, bool caseless) {
  const auto lower = [&](std::size_t i) {
    const char c = at + i < text.size() ? text[at + i] : '\0';
    return caseless && c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  };
  const char a = lower(1), b = lower(2);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
  if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
  return caseless && text.substr(at + 1, 2) == "\xC5\xBF" ? 3 : 0;
}

// White space that neither joins the word behind it nor holds what the pattern asks for elsewhere: all but
// the last character of the run, or all of it where the text ends or the run has one character.
inline std::size_t space_end(Cursor& cursor, std::size_t begin, bool digits_end) {
  std::size_t last = begin;
  while (cursor.space()) last = cursor.at(), cursor.next();
  const bool open = cursor.done() || (digits_end && cursor.number());
  return open || last == begin ? cursor.at() : last;
}

// With `digits`, every number is a word of its own and ends the text for what stands before it:
// Digits(individual) first, then the pattern.
template <typename Emit>
void scan_gpt2(std::string_view text, bool digits, Emit emit) {
  for (std::size_t at = 0; at < text.size();) {
    Cursor cursor(text, at);
    std::size_t end = 0;
    if (cursor.byte() == '\'' && (end = contraction(text, at, false)) > 0) {
      emit(at, at + end);
      at += end;
      continue;
    }
    if (digits && cursor.number()) {
      cursor.next();
      end = cursor.at();
    } else {
      if (cursor.byte() == ' ') {
        cursor.next();
        if (cursor.done() || cursor.space() || (digits && cursor.number())) cursor = Cursor(text, at);
      }
      if (cursor.letter())
        cursor.skip([](const Cursor& c) { return c.letter(); });
      else if (cursor.number())
        cursor.skip([](const Cursor& c) { return c.number(); });
      else if (cursor.other())
        cursor.skip([](const Cursor& c) { return c.other(); });
      else
        cursor = Cursor(text, space_end(cursor, at, digits));
      end = cursor.at();
    }
    emit(at, end);
    at = end;
  }
}

// End of the run of white space at `begin`: behind its last newline if it has one.
inline std::size_t space_end_llama3(std::string_view text, std::size_t begin) {
  Cursor cursor(text, begin);
  std::size_t newline = 0;
  while (cursor.space()) {
    const bool is_newline = cursor.newline();
    cursor.next();
    if (is_newline) newline = cursor.at();
  }
  if (newline > 0) return newline;
  Cursor again(text, begin);
  return space_end(again, begin, false);
}

template <typename Emit>
void scan_llama3(std::string_view text, int most_digits, Emit emit) {
  const auto letters = [](const Cursor& c) { return c.letter(); };
  for (std::size_t at = 0; at < text.size();) {
    Cursor cursor(text, at);
    std::size_t end = 0;
    if (cursor.byte() == '\'' && (end = contraction(text, at, true)) > 0) {
      end += at;
    } else if (cursor.letter()) {
      cursor.skip(letters);
      end = cursor.at();
    } else if (cursor.number()) {
      for (int i = 0; i < most_digits && cursor.number(); ++i) cursor.next();
      end = cursor.at();
    } else {
      Cursor behind = cursor;
      behind.next();
      if (!cursor.newline() && behind.letter()) {
        behind.skip(letters);
        end = behind.at();
      } else if (cursor.other() || (cursor.byte() == ' ' && behind.other())) {
        behind.skip([](const Cursor& c) { return c.other(); });
        behind.skip([](const Cursor& c) { return c.newline(); });
        end = behind.at();
      } else {
        end = space_end_llama3(text, at);
      }
    }
    emit(at, end);
    at = end;
  }
}

}  // namespace slmc::text
