// The parts of lib/text, each against a slow and obvious twin: Unicode tables against PCRE2's, scanners
// against regular expressions, the merge loops against the definition.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "tests/unit/error_text.h"
#include "tests/unit/text_samples.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/decoder.h"
#include "text/normalizer.h"
#include "text/pretokenizer.h"
#include "text/regex.h"

namespace slmc::text {
namespace {

TEST(Unicode, ClassesEqualThoseOfPcre2OnEveryCodePoint) {
  std::string all;
  std::vector<std::size_t> begins;
  std::vector<char32_t> codes;
  for (char32_t c = 0; c < kCodePoints; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    begins.push_back(all.size());
    codes.push_back(c);
    append_utf8(all, c);
  }
  const std::vector<std::pair<const char*, CharClass>> classes = {
      {R"(\p{L})", kLetter}, {R"(\p{N})", kNumber}, {R"(\s)", kSpace}, {R"([\w\x{200c}\x{200d}])", kWord}};
  for (const auto& [pattern, flag] : classes) {
    std::vector<Span> found;
    Regex(pattern).find_all(all, found);
    std::vector<std::size_t> expected;
    for (std::size_t i = 0; i < codes.size(); ++i)
      if (class_table()[codes[i]] & flag) expected.push_back(begins[i]);
    ASSERT_EQ(found.size(), expected.size()) << pattern;
    for (std::size_t i = 0; i < found.size(); ++i) ASSERT_EQ(found[i].begin, expected[i]) << pattern;
  }
}

TEST(Unicode, IllFormedPartsBecomeOneReplacementEach) {
  const std::string r = "\ufffd";  // tables 3-8 to 3-11 of the Unicode standard
  EXPECT_EQ(repair_utf8("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(repair_utf8("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(repair_utf8("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42"), r + r + r + r + r + "A" + r + r + "B");
  EXPECT_EQ(repair_utf8("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), r + r + r + r + "A");
  for (std::uint64_t i = 0; i < 300; ++i) {
    const std::string text = random_string(i);
    EXPECT_TRUE(is_utf8(text));
    EXPECT_EQ(repair_utf8(text), text);
    for (std::size_t size = 0; size < text.size(); ++size)
      EXPECT_TRUE(is_utf8(repair_utf8(text.substr(0, size))));
  }
}

TEST(Unicode, NfcExamplesOfTheStandardAndIdentities) {
  EXPECT_EQ(nfc("\u0044\u0307\u0323"), "\u1e0c\u0307");  // UAX 15, figure 5
  EXPECT_EQ(nfc("\u1e0a\u0323"), "\u1e0c\u0307");
  EXPECT_EQ(nfc("\u212b"), "\u00c5");
  EXPECT_EQ(nfc("\u1100\u1161\u11a8"), "\uac01");
  EXPECT_EQ(nfc("\uac00\u11a8"), "\uac01");
  EXPECT_EQ(nfc("\u0958"), "\u0915\u093c");  // composition exclusion
  EXPECT_EQ(nfc("a\u0323\u0302"), "\u1ead");
  EXPECT_EQ(nfc("\ufb01"), "\ufb01");  // compatibility forms stay
  for (const std::string& text : random_strings()) {
    const std::string once = nfc(text);
    ASSERT_EQ(nfc(once), once);
    ASSERT_TRUE(needs_nfc(text) || once == text);
  }
}

TEST(Regex, SaysTheSameInPcre2) {
  EXPECT_EQ(
      translate_pattern(R"(\s+(?!\S)|[^\s\w]\v\u00e9)"),
      R"(\p{White_Space}+(?!\P{White_Space})|[^\p{White_Space}\p{Alphabetic}\p{M}\p{Nd}\p{Pc}]\x0b\x{00e9})");
  for (const char* same : {R"([^\r\n\p{L}\p{N}]?\p{L}+)", R"((?i:'s|'t))", R"((?<=a)b{1,3}?)", R"(\p{Han}++)",
                           R"([a\]\[\\-]\()"})
    EXPECT_EQ(translate_pattern(same), same);
  for (const char* other : {R"(\h)", R"(a\b)", R"([\W])", "[a&&b]", "[a[b]]", "(?m:.)", "(?<n>a)", "a{1,3}+",
                            R"(\R)", R"(\p)", R"(\u12)", "a{2"}) {
    const std::string error = error_text([&] { translate_pattern(other); });
    EXPECT_TRUE(error.starts_with(
        "error: the pattern of a tokenizer must use constructs that PCRE2 shares, but has '"))
        << other << ": " << error;
  }
  EXPECT_EQ(error_text([] { Regex("a(b"); }),
            "error: the pattern 'a(b' must be a regular expression, but missing closing parenthesis at byte "
            "3 of 'a(b'");
}

TEST(Regex, EmptyMatchesAreKeptApartFromNeighbours) {
  std::vector<Span> found;
  Regex("b*").find_all("a\u00e9bbc", found);
  EXPECT_EQ(found, (std::vector<Span>{{0, 0}, {1, 1}, {3, 5}, {6, 6}}));
  found.clear();
  Regex::literal("a.b").find_all("a.b axb a.b", found);
  EXPECT_EQ(found, (std::vector<Span>{{0, 3}, {8, 11}}));
}

TEST(Regex, EndlessMatchingIsAnError) {
  std::vector<Span> found;
  const std::string error =
      error_text([&] { Regex("(a+)+(a+)+(a+)+$").find_all(std::string(5000, 'a') + "b", found); });
  EXPECT_TRUE(
      error.starts_with("error: the pattern '(a+)+(a+)+(a+)+$' must match within 1000000 steps, but "))
      << error;
}

PreTokenizer pretokenizer(const std::string& json) {
  return PreTokenizer::from_json(parse_json(json, "test", ErrorKind::Data), "test");
}

std::vector<std::string> fast(const PreTokenizer& p, std::string_view text) {
  std::vector<std::string> words;
  std::string buffer;
  p.words(text, true, buffer, [&](std::string_view word) { words.emplace_back(word); });
  return words;
}

TEST(PreTokenizer, ScannersGiveTheWordsOfTheirPatterns) {
  const std::string bytes =
      R"({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false})";
  const auto split = [&](std::string_view pattern) {
    return Json{{"type", "Split"},
                {"pattern", {{"Regex", std::string(pattern)}}},
                {"behavior", "Isolated"},
                {"invert", false}}
        .dump();
  };
  const auto sequence = [](const std::string& a, const std::string& b) {
    return R"({"type": "Sequence", "pretokenizers": [)" + a + "," + b + "]}";
  };
  const std::string gpt2 = R"({"type": "ByteLevel", "add_prefix_space": false})";
  std::vector<std::string> texts = random_strings();
  for (const char* file : {"calib.jsonl", "train/code.jsonl"})
    for (std::string& text : documents_of(source_file(std::string("configs/data/") + file)))
      texts.push_back(std::move(text));
  std::size_t words = 0;
  for (const std::string& json :
       {gpt2, std::string(R"({"type": "ByteLevel", "add_prefix_space": true})"),
        sequence(R"({"type": "Digits", "individual_digits": true})", gpt2),
        sequence(split(kLlama3Pattern), bytes), sequence(split(kQwen2Pattern), bytes)}) {
    const PreTokenizer p = pretokenizer(json);
    ASSERT_TRUE(p.byte_level());
    for (const std::string& text : texts) {
      const std::vector<std::string> expected = p.words_by_steps(text, true);
      ASSERT_EQ(fast(p, text), expected) << json << text;
      words += expected.size();
    }
  }
  EXPECT_GT(words, 1000000u);
}

TEST(PreTokenizer, SplitBehaviors) {
  const auto split = [&](const char* behavior, bool invert) {
    return pretokenizer(Json{{"type", "Split"},
                             {"pattern", {{"String", "-"}}},
                             {"behavior", behavior},
                             {"invert", invert}}
                            .dump())
        .words_by_steps("the-final--countdown", true);
  };
  using Words = std::vector<std::string>;  // the examples of the documentation of `tokenizers`
  EXPECT_EQ(split("Removed", false), (Words{"the", "final", "countdown"}));
  EXPECT_EQ(split("Isolated", false), (Words{"the", "-", "final", "-", "-", "countdown"}));
  EXPECT_EQ(split("MergedWithPrevious", false), (Words{"the-", "final-", "-", "countdown"}));
  EXPECT_EQ(split("MergedWithNext", false), (Words{"the", "-final", "-", "-countdown"}));
  EXPECT_EQ(split("Contiguous", false), (Words{"the", "-", "final", "--", "countdown"}));
  EXPECT_EQ(split("Removed", true), (Words{"-", "-", "-"}));
}

TEST(PreTokenizer, MetaspaceSchemes) {
  const auto meta = [&](const char* scheme, bool cut, bool at_start) {
    return pretokenizer(
               Json{{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", scheme}, {"split", cut}}
                   .dump())
        .words_by_steps("a  b c", at_start);
  };
  using Words = std::vector<std::string>;
  EXPECT_EQ(meta("always", true, false), (Words{"_a", "_", "_b", "_c"}));
  EXPECT_EQ(meta("first", true, true), (Words{"_a", "_", "_b", "_c"}));
  EXPECT_EQ(meta("first", true, false), (Words{"a", "_", "_b", "_c"}));
  EXPECT_EQ(meta("never", false, true), (Words{"a__b_c"}));
}

// The definition: find the pair of lowest rank, leftmost; join it; again.
std::vector<std::int32_t> by_definition(std::vector<std::int32_t> symbols, const std::vector<Merge>& merges) {
  std::map<std::pair<int, int>, std::size_t> rank;
  for (std::size_t i = 0; i < merges.size(); ++i) rank[{merges[i].left, merges[i].right}] = i;
  while (true) {
    std::size_t best = merges.size(), at = 0;
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto found = rank.find({symbols[i], symbols[i + 1]});
      if (found != rank.end() && found->second < best) best = found->second, at = i;
    }
    if (best == merges.size()) return symbols;
    symbols[at] = merges[best].result;
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

TEST(Bpe, BothMergeLoopsEqualTheDefinition) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    Vocabulary vocabulary;
    const std::string letters = "abcd";
    std::vector<std::string> tokens;
    for (const char c : letters) vocabulary.add(tokens.emplace_back(1, c), vocabulary.count());
    std::vector<Merge> merges;
    for (std::uint64_t n = 0; tokens.size() < 40; ++n) {
      const std::uint64_t r = splitmix(seed * 100000 + n);
      const std::string left = tokens[r % tokens.size()], right = tokens[(r >> 20) % tokens.size()],
                        joined = left + right;
      if (joined.size() > 12) continue;
      if (vocabulary.find(joined) == kNoId) vocabulary.add(tokens.emplace_back(joined), vocabulary.count());
      merges.push_back({vocabulary.find(left), vocabulary.find(right), vocabulary.find(joined)});
    }
    const Bpe bpe(vocabulary, merges, {});
    const BpeScratchPtr scratch = Bpe::make_scratch();
    for (const std::size_t size : {1, 2, 3, 7, 22, 23, 24, 47, 48, 49, 100, 1000}) {
      std::string word;
      std::vector<std::int32_t> symbols;
      for (std::size_t i = 0; i < size; ++i) {
        word += letters[splitmix(seed * 7919 + size * 31 + i) % (1 + seed % 4)];
        symbols.push_back(vocabulary.find(word.substr(i)));
      }
      const std::vector<std::int32_t> expected = by_definition(symbols, merges);
      for (int repeat = 0; repeat < 2; ++repeat) {  // the second time from the cache, if it fits
        std::vector<std::int32_t> ids;
        bpe.encode(word, *scratch, ids);
        ASSERT_EQ(ids, expected) << "seed " << seed << " size " << size;
      }
    }
  }
}

TEST(Bpe, UnknownCharactersAndByteFallback) {
  Vocabulary vocabulary;
  for (const char* token : {"a", "?", "<0xC3>", "<0xA9>"}) vocabulary.add(token, vocabulary.count());
  const auto ids = [&](const char* word, BpeRules rules) {
    std::vector<std::int32_t> out;
    const BpeScratchPtr scratch = Bpe::make_scratch();
    Bpe(vocabulary, {}, rules).encode(word, *scratch, out);
    return out;
  };
  using Ids = std::vector<std::int32_t>;
  EXPECT_EQ(ids("xya", {}), (Ids{0}));
  EXPECT_EQ(ids("xyaz", {.unknown = 1}), (Ids{1, 1, 0, 1}));
  EXPECT_EQ(ids("xyaz", {.fuse_unknown = true, .unknown = 1}), (Ids{1, 0, 1}));
  EXPECT_EQ(ids("\u00e9", {.byte_fallback = true, .unknown = 1}), (Ids{2, 3}));
  EXPECT_EQ(ids("\u00ea", {.byte_fallback = true, .unknown = 1}), (Ids{1}));
  EXPECT_EQ(ids("xy\u00e9"
                "a",
                {.byte_fallback = true, .unknown = 1}),
            (Ids{1, 2, 3, 1, 0}));  // held back, as `tokenizers` does
}

TEST(Bpe, CutsAreAllowedOnlyWhereNoMergeCrosses) {
  const auto may_cut = [](std::vector<std::pair<std::string, std::string>> pairs) {
    Vocabulary vocabulary;
    for (const char* token : {"_", "a", "b"}) vocabulary.add(token, vocabulary.count());
    std::vector<Merge> merges;
    for (const auto& [left, right] : pairs) {
      if (vocabulary.find(left + right) == kNoId) vocabulary.add(left + right, vocabulary.count());
      merges.push_back({vocabulary.find(left), vocabulary.find(right), vocabulary.find(left + right)});
    }
    return Bpe(vocabulary, merges, {}).may_cut_before("_");
  };
  EXPECT_TRUE(may_cut({{"_", "a"}, {"_", "_"}, {"__", "_a"}, {"a", "b"}}));
  EXPECT_FALSE(may_cut({{"_", "a"}, {"a", "_"}}));
  EXPECT_FALSE(may_cut({{"_", "a"}, {"b", "_a"}}));
}

TEST(TokenFinder, LeftmostThenLongest) {
  TokenFinder finder;
  for (const char* text : {"ab", "abcd", "bc", "d"})
    finder.add(text, {.id = static_cast<std::int32_t>(std::string(text).size()), .content = text});
  std::vector<Part> parts;
  finder.split("xabcabcdbcd", parts);  // x|ab|c|abcd|bc|d
  std::vector<std::int32_t> ids;
  for (const Part& part : parts) ids.push_back(part.id);
  EXPECT_EQ(ids, (std::vector<std::int32_t>{kNoId, 2, kNoId, 4, 2, 1}));
}

TEST(Decoder, StepsAsInTokenizers) {
  const auto decoder = [](const char* json) {
    return Decoder::from_json(parse_json(json, "test", ErrorKind::Data), "test");
  };
  EXPECT_EQ(decoder("null").decode({"a", "b"}), "a b");
  const Decoder bytes = decoder(R"({"type": "ByteFallback"})");
  EXPECT_EQ(bytes.decode({"<0xE2>", "<0x82>", "<0xAC>", "x", "<0xE2>", "<0x82>"}), "\u20acx\ufffd\ufffd");
  EXPECT_EQ(bytes.piece("<0xE2>"), "\xE2");
  const Decoder meta = decoder(R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "always"})");
  EXPECT_EQ(meta.decode({"_a", "_b"}), "a b");
  const Decoder strip = decoder(R"({"type": "Strip", "content": "x", "start": 2, "stop": 1})");
  EXPECT_EQ(strip.decode({"xxxaxx", "x"}), "xax");
}

}  // namespace
}  // namespace slmc::text
