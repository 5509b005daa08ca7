#include "core/text.h"

#include <algorithm>
#include <array>
#include <cstdint>

namespace slmc {
namespace {

// One code point from the front of `text`; invalid bytes come back alone. Removes what it read.
char32_t next_code_point(std::string_view& text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  const std::size_t size = lead < 0x80 ? 1 : lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
  char32_t code = size == 1 ? lead : lead & (0x7Fu >> size);
  bool valid = size <= text.size();
  for (std::size_t i = 1; valid && i < size; ++i) {
    valid = (byte(i) & 0xC0) == 0x80;
    code = code << 6 | (byte(i) & 0x3Fu);
  }
  text.remove_prefix(valid ? size : 1);
  return valid ? code : char32_t{0xFFFD};
}

struct Range {
  char32_t first, last;
};

// The blocks that matter in practice, not the whole of Unicode's tables.
constexpr std::array kCombining = {Range{0x300, 0x36F},   Range{0x483, 0x489},   Range{0x591, 0x5BD},
                                   Range{0x610, 0x61A},   Range{0x64B, 0x65F},   Range{0x1AB0, 0x1AFF},
                                   Range{0x1DC0, 0x1DFF}, Range{0x200B, 0x200F}, Range{0x20D0, 0x20FF},
                                   Range{0xFE00, 0xFE0F}, Range{0xFE20, 0xFE2F}};
constexpr std::array kWide = {Range{0x1100, 0x115F},   Range{0x2E80, 0x303E},   Range{0x3041, 0xA4CF},
                              Range{0xA960, 0xA97C},   Range{0xAC00, 0xD7A3},   Range{0xF900, 0xFAFF},
                              Range{0xFE30, 0xFE6F},   Range{0xFF00, 0xFF60},   Range{0xFFE0, 0xFFE6},
                              Range{0x1F300, 0x1F64F}, Range{0x1F680, 0x1F6FF}, Range{0x1F900, 0x1F9FF},
                              Range{0x20000, 0x3FFFD}};

template <typename Ranges>
bool inside(const Ranges& ranges, char32_t c) {
  return std::any_of(ranges.begin(), ranges.end(),
                     [&](const Range& r) { return c >= r.first && c <= r.last; });
}

int columns_of(char32_t c) { return c < 0x300 ? 1 : inside(kCombining, c) ? 0 : inside(kWide, c) ? 2 : 1; }

}  // namespace

int display_width(std::string_view utf8) {
  int columns = 0;
  while (!utf8.empty()) columns += columns_of(next_code_point(utf8));
  return columns;
}

std::string cut_to(std::string_view utf8, int columns) {
  if (display_width(utf8) <= columns) return std::string(utf8);
  std::string_view left = utf8;
  std::size_t kept = 0;
  int used = 0;
  while (!left.empty()) {
    used += columns_of(next_code_point(left));
    if (used > columns - 1) break;
    kept = utf8.size() - left.size();
  }
  return std::string(utf8.substr(0, kept)) + "…";
}

std::string wrap(std::string_view text, int width, int indent) {
  std::string out;
  int column = 0;
  bool first = true;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (word.empty()) continue;
    const int size = display_width(word);
    if (first) {
      column = size;
      first = false;
    } else if (column + 1 + size > width) {
      out += '\n' + std::string(static_cast<std::size_t>(std::max(indent, 0)), ' ');
      column = indent + size;
    } else {
      out += ' ';
      column += 1 + size;
    }
    out += word;
  }
  return out;
}

}  // namespace slmc
