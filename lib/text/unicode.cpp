#include "text/unicode.h"

#include <algorithm>
#include <memory>
#include <unordered_map>
#include <vector>

namespace slmc::text {
namespace {

struct Decomposition {
  char32_t code, first, second;  // second 0: a single code point
  bool composes;
};
#include "text/unicode_tables.inc"

// Hangul syllables are composed by arithmetic (Unicode 14.0, chapter 3.12).
constexpr char32_t kSyllable = 0xAC00, kLead = 0x1100, kVowel = 0x1161, kTail = 0x11A7;
constexpr char32_t kLeads = 19, kVowels = 21, kTails = 28, kSyllables = kLeads * kVowels * kTails;

template <std::size_t n>
std::unique_ptr<ClassTable> spread(const std::uint32_t (&runs)[n]) {
  auto table = std::make_unique<ClassTable>();
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint32_t end = i + 1 < n ? runs[i + 1] >> 8 : kCodePoints;
    std::fill(table->begin() + (runs[i] >> 8), table->begin() + end, static_cast<std::uint8_t>(runs[i]));
  }
  return table;
}

const ClassTable& combining_classes() {
  static const auto table = spread(kCombiningRuns);
  return *table;
}

const Decomposition* decomposition_of(char32_t code) {
  const auto at = std::lower_bound(std::begin(kDecompositions), std::end(kDecompositions), code,
                                   [](const Decomposition& d, char32_t c) { return d.code < c; });
  return at != std::end(kDecompositions) && at->code == code ? at : nullptr;
}

void decompose(char32_t code, std::u32string& out) {
  if (code - kSyllable < kSyllables) {
    const char32_t index = code - kSyllable;
    out += kLead + index / (kVowels * kTails);
    out += kVowel + index / kTails % kVowels;
    if (index % kTails) out += kTail + index % kTails;
    return;
  }
  const Decomposition* d = decomposition_of(code);
  if (!d) {
    out += code;
    return;
  }
  decompose(d->first, out);
  if (d->second) decompose(d->second, out);
}

char32_t compose(char32_t a, char32_t b) {  // 0 when the pair has no primary composite
  if (a - kLead < kLeads && b - kVowel < kVowels)
    return kSyllable + ((a - kLead) * kVowels + (b - kVowel)) * kTails;
  if (a - kSyllable < kSyllables && (a - kSyllable) % kTails == 0 && b > kTail && b - kTail < kTails)
    return a + (b - kTail);
  static const auto pairs = [] {
    std::unordered_map<std::uint64_t, char32_t> map;
    for (const Decomposition& d : kDecompositions)
      if (d.composes) map.emplace(std::uint64_t{d.first} << 32 | d.second, d.code);
    return map;
  }();
  const auto at = pairs.find(std::uint64_t{a} << 32 | b);
  return at == pairs.end() ? 0 : at->second;
}

void order_marks(std::u32string& text) {  // canonical ordering: stable by combining class between starters
  const ClassTable& ccc = combining_classes();
  for (std::size_t i = 0; i < text.size();) {
    if (ccc[text[i]] == 0) {
      ++i;
      continue;
    }
    std::size_t end = i;
    while (end < text.size() && ccc[text[end]] != 0) ++end;
    std::stable_sort(text.begin() + static_cast<std::ptrdiff_t>(i),
                     text.begin() + static_cast<std::ptrdiff_t>(end),
                     [&](char32_t a, char32_t b) { return ccc[a] < ccc[b]; });
    i = end;
  }
}

// A mark joins the last starter unless something between them has the same or a higher class ("blocked").
void compose_all(std::u32string& text) {
  const ClassTable& ccc = combining_classes();
  std::size_t out = 0, starter = std::u32string::npos;
  int last = 0;  // class of what was kept last; 0 right after a starter
  for (const char32_t code : text) {
    const int own = ccc[code];
    const bool blocked = starter == std::u32string::npos || (out > starter + 1 && (last == 0 || last >= own));
    if (!blocked)
      if (const char32_t joined = compose(text[starter], code)) {
        text[starter] = joined;
        continue;
      }
    if (own == 0) starter = out;
    last = own;
    text[out++] = code;
  }
  text.resize(out);
}

// Length of the well-formed sequence at `at`, or minus the length of the maximal ill-formed part.
int sequence(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) {
    return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0u;
  };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4) return -1;
  const int length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  const unsigned low = lead == 0xE0   ? 0xA0
                       : lead == 0xF0 ? 0x90
                                      : 0x80;  // table 3-7: the second byte's range
  const unsigned high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  if (byte(1) < low || byte(1) > high) return -1;
  for (int i = 2; i < length; ++i)
    if ((byte(static_cast<std::size_t>(i)) & 0xC0) != 0x80) return -i;
  return length;
}

}  // namespace

const ClassTable& class_table() {
  static const auto table = spread(kClassRuns);
  return *table;
}

void append_utf8(std::string& out, char32_t code) {
  const auto put = [&](char32_t byte) { out += static_cast<char>(byte); };
  if (code < 0x80) return put(code);
  if (code < 0x800) return put(0xC0 | code >> 6), put(0x80 | (code & 0x3F));
  if (code < 0x10000)
    return put(0xE0 | code >> 12), put(0x80 | (code >> 6 & 0x3F)), put(0x80 | (code & 0x3F));
  put(0xF0 | code >> 18), put(0x80 | (code >> 12 & 0x3F)), put(0x80 | (code >> 6 & 0x3F)),
      put(0x80 | (code & 0x3F));
}

std::size_t last_character(std::string_view text) {
  std::size_t at = text.size() - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

bool is_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    if (static_cast<unsigned char>(text[i]) < 0x80) {
      ++i;
      continue;
    }
    const int length = sequence(text, i);
    if (length < 0) return false;
    i += static_cast<std::size_t>(length);
  }
  return true;
}

std::string repair_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const int length = sequence(text, i);
    const auto bytes = static_cast<std::size_t>(length < 0 ? -length : length);
    if (length < 0)
      append_utf8(out, 0xFFFD);
    else
      out.append(text, i, bytes);
    i += bytes;
  }
  return out;
}

bool needs_nfc(std::string_view text) {
  const ClassTable& classes = class_table();
  int bytes = 1;
  for (std::size_t i = 0; i < text.size(); i += static_cast<std::size_t>(bytes)) {
    bytes = 1;
    if (static_cast<unsigned char>(text[i]) < 0x80) continue;
    if (classes[code_point(text.data() + i, bytes)] & kNfcCheck) return true;
  }
  return false;
}

std::string nfc(std::string_view text) {
  if (!needs_nfc(text)) return std::string(text);
  std::u32string full;
  full.reserve(text.size());
  int bytes = 0;
  for (std::size_t i = 0; i < text.size(); i += static_cast<std::size_t>(bytes))
    decompose(code_point(text.data() + i, bytes), full);
  order_marks(full);
  compose_all(full);
  std::string out;
  out.reserve(text.size());
  for (const char32_t code : full) append_utf8(out, code);
  return out;
}

}  // namespace slmc::text
