#pragma once
// Texts for tests of tokenizers; the random strings are those of scripts/goldens/tokenizer_texts.py.
#include <cstdint>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/json.h"
#include "text/unicode.h"

namespace slmc::text {

inline std::filesystem::path source_file(const std::string& name) {
  return std::filesystem::path(SLMC_SOURCE_DIR) / name;
}

inline std::uint64_t splitmix(std::uint64_t seed) {
  std::uint64_t z = seed + 0x9E3779B97F4A7C15;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
  z = (z ^ z >> 27) * 0x94D049BB133111EB;
  return z ^ z >> 31;
}

// Every code point assigned in Unicode 14, private use and surrogates left out.
inline const std::vector<char32_t>& assigned_code_points() {
  static const auto codes = [] {
    std::vector<char32_t> all;
    std::ifstream file(source_file("tests/data/tokenizers/assigned14.txt"));
    std::uint32_t first = 0, last = 0;
    while (file >> std::hex >> first >> last)
      for (std::uint32_t c = first; c <= last; ++c) all.push_back(c);
    return all;
  }();
  return codes;
}

inline const std::vector<std::string>& tricky_pieces() {
  // clang-format off
  static const std::vector<std::string> pieces = {
      " ", " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2028", "\u180e", "\u200d", "\xC2\x85", "'s", "'S", "'LL", "'ve",
      "'\u017f", "'re", "'M", "'d", "'x", "n't", "1", "23", "4567", "\u00bd", "\u0663", "\u2167", "!", "...", "?!\n", "_", "\u2581",
      "\u0301", "\u0323", "\u0300\u0323", "e\u0301", "\u1100\u1161", "\u11a8", "\uac00", "\u0958", "\u212b", "\u0344", "\ufb01",
      "A", "the", " world", "\u00e9", "\u6f22\u5b57", "\U0001f600", "\U0001f469\u200d\U0001f4bb", "\ufeff", "\ufffd",
      std::string(1, '\0'), "\x7f", "<s>", "</s>", "<unk>", "<0x41>", "<|endoftext|>", "<|im_start|>", "<|user|>", "<", "|>"};
  // clang-format on
  return pieces;
}

inline std::string random_string(std::uint64_t i) {
  const auto draw = [i](std::uint64_t k) { return splitmix(i * 1000 + k); };
  std::string text;
  for (std::uint64_t k = 1; k < 2 + draw(0) % 24; ++k) {
    const std::uint64_t full = draw(k), r = full >> 8;
    if (i % 3 == 1 && full % 8 > 0)
      text += static_cast<char>(32 + r % 95);
    else if (i % 3 == 2 && full % 8 > 0)
      text += tricky_pieces()[r % tricky_pieces().size()];
    else
      append_utf8(text, assigned_code_points()[r % assigned_code_points().size()]);
  }
  return text;
}

inline std::vector<std::string> random_strings() {
  std::vector<std::string> all;
  for (std::uint64_t i = 0; i < 10000; ++i) all.push_back(random_string(i));
  return all;
}

// The documents of a .jsonl file (field "text"); any other file is one document.
inline std::vector<std::string> documents_of(const std::filesystem::path& path) {
  const std::string text = read_text(path);
  if (path.extension() != ".jsonl") return {text};
  std::vector<std::string> documents;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = text.find('\n', at);
    documents.push_back(
        parse_json(text.substr(at, end - at), path.string(), ErrorKind::Data)["text"].get<std::string>());
    at = end + 1;
  }
  return documents;
}

}  // namespace slmc::text
