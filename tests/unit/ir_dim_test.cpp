// Dims against a dense table: every entry of a dimension written out by the grammar's meaning, with no
// strides anywhere.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "core/error.h"
#include "ir/dim.h"

namespace slmc::ir {
namespace {

// Oracle: the entries of a dimension in order, each as "tensor|axis=coordinate,...". Expands the text by
// hand-made recursion on an independent tree that the generator builds together with the text.
struct Tree {
  std::string text;                  // as the grammar writes it
  std::vector<std::string> entries;  // in order
};

Tree axis(const std::string& name, int size) {
  Tree t{name, {}};
  for (int i = 0; i < size; ++i) t.entries.push_back(name + "=" + std::to_string(i) + ",");
  return t;
}

Tree times(const Tree& a, const Tree& b) {
  Tree t{a.text + " " + b.text, {}};
  for (const std::string& x : a.entries)
    for (const std::string& y : b.entries) t.entries.push_back(x + y);
  return t;
}

Tree plus(const Tree& a, const Tree& b) {
  Tree t{a.text + " + " + b.text, a.entries};
  t.entries.insert(t.entries.end(), b.entries.begin(), b.entries.end());
  return t;
}

Tree group(const Tree& a) { return {"(" + a.text + ")", a.entries}; }

Tree label(const std::string& tensor, const Tree& a) {
  Tree t{tensor + ":" + a.text, {}};
  for (const std::string& x : a.entries) t.entries.push_back(tensor + "|" + x);
  return t;
}

// What leaves say about each index: the same strings, made from strides.
std::vector<std::string> from_leaves(const std::vector<Leaf>& leaves, std::int64_t size) {
  std::vector<std::string> entries(static_cast<std::size_t>(size));
  for (const Leaf& leaf : leaves) {
    std::vector<std::int64_t> at(leaf.axes.size(), 0);
    for (std::int64_t n = 0; n < leaf.count(); ++n) {
      std::int64_t index = leaf.offset;
      std::string text = leaf.tensor.empty() ? "" : leaf.tensor + "|";
      for (std::size_t a = 0; a < at.size(); ++a) {
        index += at[a] * leaf.strides[a];
        text += leaf.axes[a] + "=" + std::to_string(at[a]) + ",";
      }
      EXPECT_GE(index, 0);
      EXPECT_LT(index, size);
      EXPECT_TRUE(entries[static_cast<std::size_t>(index)].empty())
          << "index " << index << " is covered twice";
      entries[static_cast<std::size_t>(index)] = text;
      for (std::size_t a = at.size(); a-- > 0;) {
        if (++at[a] < leaf.sizes[a]) break;
        at[a] = 0;
      }
    }
  }
  return entries;
}

void expect_equal(const Tree& tree, const std::map<std::string, int>& sizes) {
  SCOPED_TRACE(tree.text);
  const Dim dim = Dim::parse(tree.text, "test");
  const SizeOf size_of = [&](std::string_view a) {
    return static_cast<std::int64_t>(sizes.at(std::string(a)));
  };
  ASSERT_EQ(dim.size(size_of), static_cast<std::int64_t>(tree.entries.size()));
  EXPECT_EQ(from_leaves(dim.leaves(size_of), dim.size(size_of)), tree.entries);
}

// Every dim of at most three terms of at most three factors, axes a b c of sizes 0 .. 3, with and without a
// group and labels.
TEST(Dim, AllSmallOnesAgreeWithADenseTable) {
  int tried = 0;
  for (int sa = 0; sa <= 3; ++sa)
    for (int sb = 1; sb <= 3; ++sb)
      for (int sc = 0; sc <= 2; ++sc) {
        const std::map<std::string, int> sizes = {{"a", sa}, {"b", sb}, {"c", sc}};
        const Tree a = axis("a", sa), b = axis("b", sb), c = axis("c", sc);
        const std::vector<Tree> terms = {
            a,
            times(a, b),
            times(times(a, b), c),
            times(a, group(plus(b, c))),
            times(group(plus(a, b)), c),
            times(a, group(times(b, c))),
            times(group(plus(times(a, b), c)), group(b)).entries.empty() ? a : times(a, times(b, c))};
        for (const Tree& one : terms) {
          expect_equal(one, sizes);
          for (const Tree& two : terms) {
            expect_equal(plus(one, two), sizes);
            expect_equal(plus(label("x", one), label("y.z", two)), sizes);
            ++tried;
          }
          expect_equal(
              times(b, group(plus(plus(label("q", one), label("k", a)), label("v", c)))).entries.size() > 200
                  ? one
                  : plus(one, plus(a, b)),
              sizes);
        }
      }
  EXPECT_EQ(tried, 4 * 3 * 3 * 49);
}

TEST(Dim, InterleavedProjectionOfGptNeox) {
  const std::map<std::string, int> sizes = {{"kv", 2}, {"two", 2}, {"freq", 1}, {"pass", 1}, {"vd", 2}};
  const Tree head = group(plus(times(axis("two", 2), axis("freq", 1)), axis("pass", 1)));
  const Tree per_group = group(plus(plus(label("q", head), label("k", head)), label("v", axis("vd", 2))));
  Tree whole = times(axis("kv", 2), per_group);
  for (std::string& e : whole.entries) {  // labels stand inside: move them to the front
    const std::size_t comma = e.find(',') + 1, bar = e.find('|');
    e = e.substr(comma, bar + 1 - comma) + e.substr(0, comma) + e.substr(bar + 1);
  }
  expect_equal(whole, sizes);
}

TEST(Dim, FixedSizesAreNamedByTheirNumber) {
  const Dim dim = Dim::parse("3 a", "test");
  const auto leaves = dim.leaves([](std::string_view) { return std::int64_t{4}; });
  ASSERT_EQ(leaves.size(), 1u);
  EXPECT_EQ(leaves[0].axes, (std::vector<std::string>{"#3", "a"}));
  EXPECT_EQ(leaves[0].strides, (std::vector<std::int64_t>{4, 1}));
  EXPECT_EQ(dim.axes(), std::vector<std::string>{"a"});
}

TEST(Dim, AxesInOrderOfAppearance) {
  const Dim dim = Dim::parse("kv q (two freq + pass)", "test");
  EXPECT_EQ(dim.axes(), (std::vector<std::string>{"kv", "q", "two", "freq", "pass"}));
  EXPECT_TRUE(dim.carries("pass"));
  EXPECT_FALSE(dim.carries("vd"));
}

TEST(Dim, WrongTextsPointAtTheCharacter) {
  struct Wrong {
    const char* text;
    int column;
  };
  for (const Wrong& w :
       {Wrong{"", 1}, Wrong{"a + ", 5}, Wrong{"a (b", 5}, Wrong{"a )", 3}, Wrong{"a * b", 3}, Wrong{"0 a", 2},
        Wrong{"x:", 3}, Wrong{"a + + b", 5}, Wrong{"99999999 a", 8}, Wrong{"((((((((((a", 10}}) {
    try {
      Dim::parse(w.text, "file.json");
      FAIL() << "'" << w.text << "' was accepted";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::Recipe);
      EXPECT_EQ(e.diagnostics()[0].place.column, w.column) << w.text;
      EXPECT_EQ(e.diagnostics()[0].place.line_text, w.text);
    }
  }
}

TEST(Dim, SizesThatOverflowAreRefused) {
  const Dim dim = Dim::parse("a a a a a", "test");
  EXPECT_THROW(dim.size([](std::string_view) { return std::int64_t{100'000'000}; }), Error);
}

TEST(Dim, GroupsThatMultiplyAreRefused) {
  std::string text = "(a + b)";
  for (int i = 0; i < 9; ++i) text += " (a + b)";
  EXPECT_THROW(Dim::parse(text, "test").leaves([](std::string_view) { return std::int64_t{2}; }), Error);
}

}  // namespace
}  // namespace slmc::ir
