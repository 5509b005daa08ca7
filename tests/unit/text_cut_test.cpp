// Vocabulary cuts of every style of tokenizer, against JSON that was cut by hand (another tokenizer.json with fewer lines) and by the laws C1
// to C3 of tokenizer.h. tests/exports opens the same cuts in `tokenizers` and llama.cpp.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "core/file.h"
#include "core/rng.h"
#include "tests/unit/error_text.h"
#include "tests/unit/test_folder.h"
#include "tests/unit/text_samples.h"
#include "text/tokenizer.h"

namespace slmc::text {
namespace {

using Ids = std::vector<std::int32_t>;
using Rows = std::vector<std::int64_t>;

std::filesystem::path stored(const std::string& style) { return source_file("tests/data/tokenizers/" + style + ".json"); }

Rows all_of(const Tokenizer& t) {
  Rows all(static_cast<std::size_t>(t.size()));
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int64_t>(i);
  return all;
}

// Whether a text holds an added token that goes: it is then read as plain text.
bool lost(const std::string& style, const Tokenizer& cut, const std::string& text) {
  static std::map<std::string, std::vector<std::string>> added;
  const auto [it, fresh] = added.try_emplace(style);
  if (fresh) {
    const Json json = read_json(stored(style), ErrorKind::Data);
    for (const Json& token : json["added_tokens"]) it->second.push_back(token["content"].get<std::string>());
  }
  return std::any_of(it->second.begin(), it->second.end(),
                     [&](const std::string& token) { return !cut.id_of(token) && text.find(token) != std::string::npos; });
}

// What must stay, and each other token with its ancestors with the given chance.
Rows random_cut(const Tokenizer& t, double share, std::uint64_t seed) {
  std::set<std::int64_t> kept;
  const std::vector<TokenParts> parts = t.token_parts();
  const std::function<void(std::int64_t)> keep = [&](std::int64_t id) {
    if (id < 0 || !kept.insert(id).second || id >= static_cast<std::int64_t>(parts.size())) return;
    keep(parts[static_cast<std::size_t>(id)].left), keep(parts[static_cast<std::size_t>(id)].right);
  };
  for (const NeededToken& needed : t.needed()) keep(needed.id);
  const Rng rng(seed);
  for (std::int64_t id = 0; id < t.size(); ++id)
    if (rng.uniform(static_cast<std::uint64_t>(id)) < share && t.has(static_cast<std::int32_t>(id))) keep(id);
  return {kept.begin(), kept.end()};
}

// The same cut as lines of a tokenizer.json: tokens that are not kept are erased, the rest is numbered anew by the vocabulary's order.
Tokenizer cut_by_hand(const std::string& style, const Rows& kept) {
  Json json = read_json(stored(style), ErrorKind::Data);
  std::map<std::int64_t, std::int64_t> place;
  for (const std::int64_t id : kept) place.emplace(id, static_cast<std::int64_t>(place.size()));
  std::map<std::string, std::int64_t> now;
  Json vocab = Json::object(), merges = Json::array(), added = Json::array();
  for (const auto& item : json["model"]["vocab"].items()) {
    const auto at = place.find(item.value().get<std::int64_t>());
    if (at != place.end()) now[item.key()] = at->second;
  }
  for (const auto& [token, id] : now) vocab[token] = id;
  for (const Json& merge : json["model"]["merges"]) {
    const std::string line = merge.is_string() ? merge.get<std::string>() : "";
    const std::string left = merge.is_string() ? line.substr(0, line.find(' ')) : merge[0].get<std::string>();
    const std::string right = merge.is_string() ? line.substr(line.find(' ') + 1) : merge[1].get<std::string>();
    if (now.contains(left) && now.contains(right) && now.contains(left + right)) merges.push_back(Json::array({left, right}));
  }
  for (Json token : json["added_tokens"]) {
    const auto at = place.find(token["id"].get<std::int64_t>());
    if (at == place.end()) continue;
    token["id"] = at->second;
    added.push_back(token);
  }
  json["model"]["vocab"] = vocab, json["model"]["merges"] = merges, json["added_tokens"] = added;
  return Tokenizer::from_json(json.dump(), "by hand");
}

const std::vector<std::string>& texts() {
  static const std::vector<std::string> all = [] {
    std::vector<std::string> some;
    const std::vector<std::string> documents = documents_of(source_file("configs/data/heldout.jsonl"));
    for (std::size_t i = 0; i < documents.size(); i += 8) some.push_back(documents[i]);
    for (std::uint64_t i = 0; i < 1000; ++i) some.push_back(random_string(i));
    return some;
  }();
  return all;
}

class CutStyle : public ::testing::TestWithParam<std::string> {
 protected:
  Tokenizer tokenizer() const { return Tokenizer::from_file(stored(GetParam())); }
};
INSTANTIATE_TEST_SUITE_P(Tokenizer, CutStyle, ::testing::Values("smollm", "gpt2", "neox", "llama3", "qwen2", "llama2", "mistral", "flags"),
                         [](const auto& one) { return one.param; });

TEST_P(CutStyle, TextsComeBackAsTheyDid) {  // C1
  const Tokenizer whole = tokenizer();
  for (const double share : {0.0, 0.3, 0.9}) {
    const Rows kept = random_cut(whole, share, 1);
    const Tokenizer cut = whole.cut(kept);
    EXPECT_LE(cut.size(), static_cast<std::int64_t>(kept.size()));
    for (const std::string& text : texts()) {
      const Ids ids = cut.encode(text);
      if (lost(GetParam(), cut, text)) continue;
      ASSERT_EQ(cut.decode(ids), whole.decode(whole.encode(text))) << text.substr(0, 80);
    }
  }
}

TEST_P(CutStyle, EqualsTheFileWithFewerLines) {
  const Tokenizer whole = tokenizer();
  for (const double share : {0.1, 0.6}) {
    const Rows kept = random_cut(whole, share, 2);
    const Tokenizer cut = whole.cut(kept), by_hand = cut_by_hand(GetParam(), kept), again = Tokenizer::from_json(cut.to_json(), "again");
    EXPECT_EQ(cut.content_hash(), by_hand.content_hash());
    EXPECT_EQ(again.content_hash(), cut.content_hash());
    for (const std::string& text : texts()) {
      ASSERT_EQ(cut.encode(text), by_hand.encode(text));
      ASSERT_EQ(cut.encode(text), again.encode(text));
    }
  }
}

TEST_P(CutStyle, TokensThatStayAreStillMade) {  // C2
  const Tokenizer whole = tokenizer();
  const Rows kept = random_cut(whole, 0.4, 3);
  const Tokenizer cut = whole.cut(kept);
  int made = 0;
  for (std::size_t i = 0; i < kept.size(); ++i) {
    const Ids one = {static_cast<std::int32_t>(kept[i])};
    const std::string text = whole.decode(one);
    if (whole.encode(text) != one) continue;
    EXPECT_EQ(cut.encode(text), Ids{static_cast<std::int32_t>(i)}) << text;
    ++made;
  }
  EXPECT_GT(made, 50);
}

TEST_P(CutStyle, KeepingAllIsTheSame) {
  const Tokenizer whole = tokenizer();
  EXPECT_EQ(whole.cut(all_of(whole)).content_hash(), whole.content_hash());
}

TEST_P(CutStyle, PartsAreWhatALoopOverTheDefinitionFinds) {
  // Characters, then the pair of lowest rank until none is left; only for what is spelled without byte fallback.
  const Tokenizer whole = tokenizer();
  const Json json = read_json(stored(GetParam()), ErrorKind::Data);
  std::map<std::pair<std::string, std::string>, std::size_t> rank;
  for (std::size_t i = 0; i < json["model"]["merges"].size(); ++i) {
    const Json& merge = json["model"]["merges"][i];
    if (merge.is_string()) {
      const std::string line = merge.get<std::string>();
      rank[{line.substr(0, line.find(' ')), line.substr(line.find(' ') + 1)}] = i;
    } else {
      rank[{merge[0].get<std::string>(), merge[1].get<std::string>()}] = i;
    }
  }
  std::set<std::string> added;
  for (const Json& token : json["added_tokens"]) added.insert(token["content"].get<std::string>());
  const std::vector<TokenParts> parts = whole.token_parts();
  int joined = 0;
  for (const auto& item : json["model"]["vocab"].items()) {
    std::vector<std::string> symbols;
    for (const char c : item.key())
      if ((static_cast<unsigned char>(c) & 0xC0) == 0x80 && !symbols.empty()) symbols.back() += c; else symbols.emplace_back(1, c);
    std::pair<std::string, std::string> last;
    while (symbols.size() > 1) {
      std::size_t best = rank.size(), where = 0;
      for (std::size_t i = 0; i + 1 < symbols.size(); ++i)
        if (const auto at = rank.find({symbols[i], symbols[i + 1]}); at != rank.end() && at->second < best) best = at->second, where = i;
      if (best == rank.size()) break;
      last = {symbols[where], symbols[where + 1]};
      symbols[where] += symbols[where + 1];
      symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(where) + 1);
    }
    const TokenParts& got = parts[item.value().get<std::size_t>()];
    if (added.contains(item.key()) || symbols.size() != 1 || last.first.empty()) {
      EXPECT_EQ(got.left, -1) << item.key();
      continue;
    }
    EXPECT_EQ(got.left, json["model"]["vocab"][last.first].get<std::int32_t>()) << item.key();
    EXPECT_EQ(got.right, json["model"]["vocab"][last.second].get<std::int32_t>()) << item.key();
    ++joined;
  }
  EXPECT_GT(joined, 100);
}

// The cut of GGUF metadata gives the tokenizer that the cut of its parts gives.
class CutGguf : public ::testing::TestWithParam<std::pair<const char*, const char*>> {};
INSTANTIATE_TEST_SUITE_P(Tokenizer, CutGguf, ::testing::Values(std::pair("smollm", ""), std::pair("llama3", ""), std::pair("llama2", "")),
                         [](const auto& one) { return one.param.first; });

TEST_P(CutGguf, MetadataFollow) {
  const Tokenizer source = Tokenizer::from_file(stored(GetParam().first));
  const io::GgufMetadata metadata = source.to_gguf(source.size() + 5);
  const Tokenizer whole = Tokenizer::from_gguf(metadata, "whole");
  Rows kept = random_cut(whole, 0.5, 4);
  const std::size_t tokens = kept.size();
  kept.push_back(whole.size() + 2);  // a row without a token
  kept.push_back(kept[0]);           // and a copy of one, which is another
  const Tokenizer cut = Tokenizer::from_gguf(cut_metadata(metadata, kept), "cut"), parts = whole.cut(kept);
  EXPECT_EQ(cut.content_hash(), parts.content_hash());
  EXPECT_EQ(cut.size(), static_cast<std::int64_t>(tokens));
  for (const std::string& text : texts()) ASSERT_EQ(cut.encode(text), parts.encode(text));
  const auto* types = io::find(cut_metadata(metadata, kept), "tokenizer.ggml.token_type");
  ASSERT_NE(types, nullptr);
}

TEST(Cut, RefusalsNameTheToken) {
  const auto without = [&](const char* style, const char* token) {
    const Tokenizer t = Tokenizer::from_file(stored(style));
    Rows kept = all_of(t);
    std::erase(kept, *t.id_of(token));
    return error_text([&] { t.cut(kept); });
  };
  EXPECT_EQ(without("llama2", "<s>").substr(0, 86), "error: the token '<s>' (id 1) must stay, since it is the beginning of a text, but goes") << without("llama2", "<s>");
  EXPECT_NE(without("llama2", "<0x41>").find("must stay, since it is the byte 0x41, but goes"), std::string::npos) << without("llama2", "<0x41>");
  EXPECT_NE(without("llama2", "\u2581").find("must stay, since it is the mark of blanks, but goes"), std::string::npos);
  EXPECT_NE(without("smollm", "a").find("must stay, since it is the byte 0x61, but goes"), std::string::npos);
  const std::string he = without("smollm", "he");
  EXPECT_NE(he.find("must keep the parts that it is merged from, but 'he' (id "), std::string::npos) << he;
  EXPECT_NE(he.find("more tokens must stay, but go"), std::string::npos) << he;
}

TEST(Cut, AddedTokensBehindTheVocabularyKeepTheirPlace) {
  const Tokenizer t = Tokenizer::from_file(stored("llama2"));
  Rows kept = random_cut(t, 0.9, 5);
  ASSERT_EQ(kept.back(), t.size() - 1);
  EXPECT_EQ(error_text([&] { t.cut(kept); }), "no error");
  std::rotate(kept.begin(), kept.end() - 1, kept.end());  // the added token first
  EXPECT_NE(error_text([&] { t.cut(kept); }).find("right after the tokens of the vocabulary"), std::string::npos) << error_text([&] { t.cut(kept); });
}

TEST(Cut, IdsOfPostProcessorAndPaddingFollow) {
  Json json = read_json(stored("llama2"), ErrorKind::Data);
  json["padding"] = {{"strategy", "BatchLongest"}, {"pad_id", 2}, {"pad_token", "</s>"}};
  const Tokenizer t = Tokenizer::from_json(json.dump(), "llama2");
  const Rows kept = random_cut(t, 0.2, 6);
  Rows moved(kept.rbegin(), kept.rend());
  const Json cut = parse_json(t.cut(moved).to_json(), "cut", ErrorKind::Data);
  const auto place = [&](const char* token) { return std::find(moved.begin(), moved.end(), *t.id_of(token)) - moved.begin(); };
  EXPECT_EQ(cut["padding"]["pad_id"].get<std::int64_t>(), place("</s>"));
  int found = 0;
  for (const auto& special : cut["post_processor"]["special_tokens"].items()) {
    EXPECT_EQ(special.value()["ids"][0].get<std::int64_t>(), place(special.key().c_str()));
    ++found;
  }
  EXPECT_GE(found, 1);
  EXPECT_EQ(*t.cut(moved).bos(), place("<s>"));
}

}  // namespace
}  // namespace slmc::text
