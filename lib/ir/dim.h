#pragma once
// What the entries along one tensor dimension are: terms laid end to end, each a product of factors, outermost first.
// Looking for what a whole model offers? See model.h.
//
//   dim    = term *("+" term)
//   term   = [tensor ":"] 1*factor
//   factor = axis / integer / "(" dim ")"
//
//   "kv q two freq"                                      query rows of llama: group, head in group, half, frequency
//   "attn.q:kv q two freq + attn.k:kv two freq"          two logical tensors behind each other
//   "kv (attn.q:(two freq + pass) + attn.v:vd)"          interleaved by group
//
// A leaf is one product without sums inside: where it starts and how far apart its coordinates lie. Every layout question
// is answered with leaves; nothing else knows the grammar.
// (D1) the leaves of a dim cover 0 .. size-1, each index once.
// (D2) a leaf's axes keep the order in which the text names them.
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace slmc::ir {

// Size of an axis inside one block: "ffn" -> 1536. Short names ("ffn") mean the axis under `block` when there is one.
using SizeOf = std::function<std::int64_t(std::string_view axis)>;

struct DimTerm;   // parsed form, dim.cpp

struct Leaf {
  std::string tensor;                     // logical tensor, "" in a logical tensor's own dims
  std::vector<std::string> axes;          // outermost first; integers appear as "#2"
  std::vector<std::int64_t> sizes;        // of each axis
  std::vector<std::int64_t> strides;      // in entries of the dimension
  std::int64_t offset = 0;
  std::int64_t count() const;
};

class Dim {
 public:
  Dim() = default;
  // Error(Recipe) with a caret under the wrong character.
  static Dim parse(std::string_view text, std::string_view file);
  std::int64_t size(const SizeOf& size_of) const;
  // Empty products (an axis of size 0) give no leaf.
  std::vector<Leaf> leaves(const SizeOf& size_of) const;
  std::vector<std::string> axes() const;            // every axis named, each once, in order of appearance
  bool carries(std::string_view axis) const;
  const std::string& text() const { return text_; }

 private:
  std::string text_;
  std::shared_ptr<const std::vector<DimTerm>> terms_;
};

// "vocab, hidden": dims separated by commas, outermost first.
std::vector<Dim> parse_layout(std::string_view text, std::string_view file);

}  // namespace slmc::ir
