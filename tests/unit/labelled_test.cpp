// Labelled texts as pieces: which tokens, which side of the border, who is drawn.
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "data/labelled.h"
#include "tests/unit/test_folder.h"

namespace slmc::data {
namespace {

using Ids = std::vector<std::int32_t>;

class LabelledTexts : public FolderTest {
 protected:
  void SetUp() override {
    FolderTest::SetUp();
    tokenizer_.emplace(text::Tokenizer::from_file(std::string(SLMC_SOURCE_DIR) + "/tests/data/tiny-trained/tokenizer.json"));
    std::string lines;
    for (const auto& [name, text] : documents_) lines += Json{{"text", text}, {"kind", name}}.dump() + "\n";
    write_text(folder_ / "t.jsonl", lines);
    spec_.files = {folder_ / "t.jsonl"};
    spec_.label = "kind";
  }
  static std::string sentence(const std::string& word, int times) {
    std::string out;
    for (int i = 0; i < times; ++i) out += word + " number " + std::to_string(i) + " of them all. ";
    return out;
  }

  // Classes mixed, in no order: the class's text is its documents in the order of the file.
  std::vector<std::pair<std::string, std::string>> documents_ = {
      {"pear", sentence("pear", 9)}, {"apple", sentence("apple", 7)}, {"pear", sentence("green pear", 6)}, {"apple", sentence("red apple", 13)}, {"pear", "short"}};
  std::optional<text::Tokenizer> tokenizer_;
  DomainSpec spec_;
};

TEST_F(LabelledTexts, PiecesAreTheDocumentsTokensInOrderAndNoneCrossesADocument) {
  const Labelled got = read_labelled(spec_, 8, 0.25, *tokenizer_);
  EXPECT_EQ(got.classes, (Names{"apple", "pear"}));
  for (std::size_t c = 0; c < got.classes.size(); ++c) {
    std::vector<Ids> want;
    for (const auto& [name, text] : documents_) {
      if (name != got.classes[c]) continue;
      const Ids ids = tokenizer_->encode(text);
      for (std::size_t k = 0; k < ids.size() / 8; ++k) want.emplace_back(ids.begin() + 8 * static_cast<long>(k), ids.begin() + 8 * static_cast<long>(k) + 8);
    }
    EXPECT_EQ(got.pieces[c], want);
    EXPECT_EQ(got.border[c], static_cast<std::int64_t>(0.75 * static_cast<double>(want.size())));
  }
}

TEST_F(LabelledTexts, ShotsComeFromBeforeTheBorderOnceEachAndFollowTheSeed) {
  const Labelled all = read_labelled(spec_, 8, 0.5, *tokenizer_);
  const std::int64_t most = std::min(all.border[0], all.border[1]);
  std::map<std::uint64_t, std::vector<Ids>> drawn;
  for (const std::uint64_t seed : {1, 2}) {
    const std::vector<Piece> shots = draw_shots(all, most - 1, seed);
    ASSERT_EQ(static_cast<std::int64_t>(shots.size()), 2 * (most - 1));
    std::set<Ids> once;
    for (const Piece& p : shots) {
      const auto& own = all.pieces[static_cast<std::size_t>(p.label)];
      const auto at = std::find(own.begin(), own.end(), p.ids) - own.begin();
      EXPECT_LT(at, all.border[static_cast<std::size_t>(p.label)]);
      EXPECT_TRUE(once.insert(p.ids).second);
      drawn[seed].push_back(p.ids);
    }
    const std::vector<Piece> again = draw_shots(all, most - 1, seed);
    for (std::size_t i = 0; i < again.size(); ++i) EXPECT_EQ(again[i].ids, shots[i].ids);
  }
  EXPECT_NE(drawn[1], drawn[2]);
}

TEST_F(LabelledTexts, TestPiecesLieBehindTheBorderEvenlySpread) {
  const Labelled all = read_labelled(spec_, 8, 0.6, *tokenizer_);
  for (const std::int64_t count : {1, 2, 3}) {
    const std::vector<Piece> got = test_pieces(all, count);
    ASSERT_EQ(static_cast<std::int64_t>(got.size()), 2 * count);
    for (std::size_t i = 0; i < got.size(); ++i) {
      const std::size_t c = i / static_cast<std::size_t>(count), k = i % static_cast<std::size_t>(count);
      const double there = static_cast<double>(all.pieces[c].size()) - static_cast<double>(all.border[c]);
      const double middle = (static_cast<double>(k) + 0.5) / static_cast<double>(count);       // of the k-th equal part
      EXPECT_EQ(got[i].label, static_cast<std::int64_t>(c));
      EXPECT_EQ(got[i].ids, all.pieces[c][static_cast<std::size_t>(all.border[c]) + static_cast<std::size_t>(middle * there)]);
    }
  }
}

TEST_F(LabelledTexts, WhatIsMissingIsNamed) {
  const auto says = [&](const auto& act) {
    try {
      act();
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::Data);
      return e.message();
    }
    return std::string("nothing");
  };
  const Labelled all = read_labelled(spec_, 8, 0.5, *tokenizer_);
  EXPECT_NE(says([&] { draw_shots(all, 1000, 1); }).find("must have 1000 pieces for tuning, but 'apple' has"), std::string::npos);
  EXPECT_NE(says([&] { test_pieces(all, 1000); }).find("must have 1000 pieces for tests, but 'apple' has"), std::string::npos);
  DomainSpec other = spec_;
  other.label = "genre";
  EXPECT_EQ(says([&] { read_labelled(other, 8, 0.5, *tokenizer_); }), "the field 'genre' must be a text, but is missing");
  write_text(folder_ / "t.jsonl", "{\"text\": \"one\", \"kind\": \"a\"}\n");
  EXPECT_EQ(says([&] { read_labelled(spec_, 1, 0.5, *tokenizer_); }), "the documents must be of at least two classes, but are of 1");
  write_text(folder_ / "t.txt", "plain");
  other.files = {folder_ / "t.txt"};
  EXPECT_NE(says([&] { read_labelled(other, 1, 0.5, *tokenizer_); }).find("must be a line of a .jsonl file"), std::string::npos);
}

}  // namespace
}  // namespace slmc::data
