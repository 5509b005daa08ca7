#pragma once
// UTF-8, the few character classes that tokenizers ask for, and Normalization Form C. Unicode 14.0, the
// version of PCRE2 10.42; tables by scripts/unicode_tables.py.
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace slmc::text {

enum CharClass : std::uint8_t {
  kLetter = 1,     // general category L
  kNumber = 2,     // general category N
  kSpace = 4,      // property White_Space
  kWord = 8,       // Alphabetic, M, Nd, Pc, Join_Control: \w of Unicode Technical Standard 18
  kNfcCheck = 16,  // may change under NFC, or reorder, or join with what stands before it
};
inline constexpr std::uint32_t kCodePoints = 0x110000;
using ClassTable = std::array<std::uint8_t, kCodePoints>;
const ClassTable& class_table();  // built on first use

// One code point of valid UTF-8 at `p`; `bytes` receives its length, 1 to 4.
inline char32_t code_point(const char* p, int& bytes) {
  const auto b = [p](int i) { return static_cast<char32_t>(static_cast<unsigned char>(p[i])); };
  if (b(0) < 0x80) return bytes = 1, b(0);
  if (b(0) < 0xE0) return bytes = 2, (b(0) & 0x1F) << 6 | (b(1) & 0x3F);
  if (b(0) < 0xF0) return bytes = 3, (b(0) & 0x0F) << 12 | (b(1) & 0x3F) << 6 | (b(2) & 0x3F);
  return bytes = 4, (b(0) & 0x07) << 18 | (b(1) & 0x3F) << 12 | (b(2) & 0x3F) << 6 | (b(3) & 0x3F);
}
void append_utf8(std::string& out, char32_t code);
std::size_t last_character(
    std::string_view text);  // where the last code point of non-empty valid UTF-8 starts

bool is_utf8(std::string_view text);
// Each maximal ill-formed part becomes one U+FFFD (Unicode 14.0, chapter 3.9, "substitution of maximal
// subparts").
std::string repair_utf8(std::string_view text);

// Normalization Form C of valid UTF-8 (Unicode Standard Annex 15), and whether it could change the text at
// all.
std::string nfc(std::string_view text);
bool needs_nfc(std::string_view text);

}  // namespace slmc::text
