#include "ir/dim.h"

#include <algorithm>
#include <cctype>
#include <optional>

#include "core/bytes.h"
#include "core/error.h"

namespace slmc::ir {

struct DimFactor {
  std::string axis;          // "kv"; "#2" for an integer; empty for a group
  std::int64_t integer = 0;  // of "#2"
  std::vector<DimTerm> group;
};

struct DimTerm {
  std::string tensor;
  std::vector<DimFactor> factors;
};

namespace {

constexpr int kMaxNesting = 8;
constexpr std::size_t kMaxLeaves = 256;  // far above any real layout; groups multiply

class Parser {
 public:
  Parser(std::string_view text, std::string_view file) : text_(text), file_(file) {}

  std::vector<DimTerm> dim() {
    std::vector<DimTerm> terms = terms_of(0);
    skip_spaces();
    if (at_ < text_.size())
      fail("a layout must go on with an axis, '+' or ')', but there is '" + std::string(1, text_[at_]) + "'");
    return terms;
  }

 private:
  std::vector<DimTerm> terms_of(int depth) {
    if (depth > kMaxNesting) fail("a layout must be nested at most 8 deep, but is deeper");
    std::vector<DimTerm> terms;
    do terms.push_back(term(depth));
    while (take('+'));
    return terms;
  }

  DimTerm term(int depth) {
    DimTerm result;
    skip_spaces();
    const std::size_t start = at_;
    if (std::string word = name(); !word.empty()) {
      if (take(':'))
        result.tensor = word;
      else
        at_ = start;
    }
    while (std::optional<DimFactor> f = factor(depth)) result.factors.push_back(std::move(*f));
    if (result.factors.empty()) fail("a term must hold an axis, a number or a group, but is empty");
    return result;
  }

  std::optional<DimFactor> factor(int depth) {
    skip_spaces();
    DimFactor f;
    if (take('(')) {
      f.group = terms_of(depth + 1);
      if (!take(')')) fail("a group must end with ')', but does not");
      return f;
    }
    if (at_ < text_.size() && std::isdigit(static_cast<unsigned char>(text_[at_]))) {
      while (at_ < text_.size() && std::isdigit(static_cast<unsigned char>(text_[at_]))) {
        f.integer = f.integer * 10 + (text_[at_++] - '0');
        if (f.integer > 1'000'000) fail("a fixed size must be at most 1000000, but is larger");
      }
      if (f.integer == 0) fail("a fixed size must be at least 1, but is 0");
      f.axis = "#" + std::to_string(f.integer);
      return f;
    }
    f.axis = name();
    if (f.axis.empty()) return std::nullopt;
    return f;
  }

  std::string name() {
    std::size_t end = at_;
    auto inside = [](char c) {
      return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.' || c == '{' || c == '}';
    };
    if (end < text_.size() && std::isdigit(static_cast<unsigned char>(text_[end]))) return {};
    while (end < text_.size() && inside(text_[end])) ++end;
    std::string word(text_.substr(at_, end - at_));
    at_ = end;
    return word;
  }

  bool take(char c) {
    skip_spaces();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  void skip_spaces() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }

  [[noreturn]] void fail(const std::string& message) const {
    Place place{std::string(file_), 1, static_cast<int>(at_) + 1, 1, std::string(text_)};
    throw Error(ErrorKind::Recipe, std::move(place), message);
  }

  std::string_view text_, file_;
  std::size_t at_ = 0;
};

std::int64_t product(std::int64_t a, std::int64_t b) {
  return static_cast<std::int64_t>(
      checked_mul(static_cast<std::uint64_t>(a), static_cast<std::uint64_t>(b), "a layout's size"));
}

std::int64_t size_of_terms(const std::vector<DimTerm>& terms, const SizeOf& size_of);

std::int64_t size_of_factor(const DimFactor& f, const SizeOf& size_of) {
  if (!f.group.empty()) return size_of_terms(f.group, size_of);
  return f.integer != 0 ? f.integer : size_of(f.axis);
}

std::int64_t size_of_term(const DimTerm& term, const SizeOf& size_of) {
  std::int64_t size = 1;
  for (const DimFactor& f : term.factors) size = product(size, size_of_factor(f, size_of));
  return size;
}

std::int64_t size_of_terms(const std::vector<DimTerm>& terms, const SizeOf& size_of) {
  std::int64_t size = 0;
  for (const DimTerm& t : terms)
    size = static_cast<std::int64_t>(checked_add(static_cast<std::uint64_t>(size),
                                                 static_cast<std::uint64_t>(size_of_term(t, size_of)),
                                                 "a layout's size"));
  return size;
}

// Leaves of `terms` when one entry of theirs spans `unit` entries of the whole dimension.
std::vector<Leaf> leaves_of_terms(const std::vector<DimTerm>& terms, std::int64_t unit,
                                  const SizeOf& size_of) {
  std::vector<Leaf> all;
  std::int64_t offset = 0;
  for (const DimTerm& term : terms) {
    std::vector<Leaf> partial(1);
    partial[0].tensor = term.tensor;
    partial[0].offset = offset;
    std::int64_t stride = product(unit, size_of_term(term, size_of));
    const std::int64_t extent = stride;
    for (const DimFactor& f : term.factors) {
      const std::int64_t size = size_of_factor(f, size_of);
      stride = size == 0 ? 0 : stride / size;
      if (f.group.empty()) {
        for (Leaf& leaf : partial) {
          leaf.axes.push_back(f.axis);
          leaf.sizes.push_back(size);
          leaf.strides.push_back(stride);
        }
        continue;
      }
      const std::vector<Leaf> inner = leaves_of_terms(f.group, stride, size_of);
      std::vector<Leaf> crossed;
      for (const Leaf& outer : partial)
        for (const Leaf& in : inner) {
          Leaf leaf = outer;
          if (!in.tensor.empty()) leaf.tensor = in.tensor;
          leaf.offset += in.offset;
          leaf.axes.insert(leaf.axes.end(), in.axes.begin(), in.axes.end());
          leaf.sizes.insert(leaf.sizes.end(), in.sizes.begin(), in.sizes.end());
          leaf.strides.insert(leaf.strides.end(), in.strides.begin(), in.strides.end());
          crossed.push_back(std::move(leaf));
          if (crossed.size() > kMaxLeaves)
            throw Error(ErrorKind::Recipe, "a layout must have at most 256 parts, but has more");
        }
      partial = std::move(crossed);
    }
    for (Leaf& leaf : partial)
      if (leaf.count() != 0) all.push_back(std::move(leaf));
    offset += extent;
  }
  return all;
}

void collect_axes(const std::vector<DimTerm>& terms, std::vector<std::string>& axes) {
  for (const DimTerm& t : terms)
    for (const DimFactor& f : t.factors) {
      if (!f.group.empty())
        collect_axes(f.group, axes);
      else if (f.integer == 0 && std::find(axes.begin(), axes.end(), f.axis) == axes.end())
        axes.push_back(f.axis);
    }
}

}  // namespace

std::int64_t Leaf::count() const {
  std::int64_t n = 1;
  for (std::int64_t s : sizes) n *= s;
  return n;
}

Dim Dim::parse(std::string_view text, std::string_view file) {
  Dim dim;
  dim.text_ = std::string(text);
  dim.terms_ = std::make_shared<const std::vector<DimTerm>>(Parser(text, file).dim());
  return dim;
}

std::int64_t Dim::size(const SizeOf& size_of) const { return terms_ ? size_of_terms(*terms_, size_of) : 0; }

std::vector<Leaf> Dim::leaves(const SizeOf& size_of) const {
  return terms_ ? leaves_of_terms(*terms_, 1, size_of) : std::vector<Leaf>{};
}

std::vector<std::string> Dim::axes() const {
  std::vector<std::string> axes;
  if (terms_) collect_axes(*terms_, axes);
  return axes;
}

bool Dim::carries(std::string_view axis) const {
  const std::vector<std::string> all = axes();
  return std::find(all.begin(), all.end(), axis) != all.end();
}

std::vector<Dim> parse_layout(std::string_view text, std::string_view file) {
  std::vector<Dim> dims;
  for (std::size_t from = 0; from <= text.size();) {
    const std::size_t comma = std::min(text.find(',', from), text.size());
    std::string_view part = text.substr(from, comma - from);
    while (!part.empty() && part.front() == ' ') part.remove_prefix(1);
    dims.push_back(Dim::parse(part, file));
    from = comma + 1;
  }
  return dims;
}

}  // namespace slmc::ir
