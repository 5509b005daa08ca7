#pragma once
// The small expressions of templates: how config keys become sizes and options, and back.
//
//   .num_key_value_heads | heads        first that is present (absent and null are skipped)
//   .head_dim | hidden / heads          numbers: + - * / %, comparisons == != < <= > >=, and, or, not
//   'gelu' 1e-5 true null               literals
//   if(c, a, b)  sqrt(x)  floor(x)  at(list, i)  present(.key)  has('block.0.attn.q.bias')  stored('name')
//   rows('name')
//
// `.a.b` is a key of the container's config, a bare word a name defined earlier. A name that is not defined
// is an error, a key that is not there is null. No loops, no user functions: an expression ends after as many
// steps as it has characters.
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"

namespace slmc::ir {

struct ExprNode;

// Where an expression's names come from. Callbacks that a container lacks stay empty.
struct Scope {
  std::function<const Json*(std::string_view key)>
      key;  // nullptr when absent; JSON null counts as present for present()
  std::function<const Json*(std::string_view name)> name;     // nullptr when not defined
  std::function<bool(std::string_view tensor)> has;           // is there a logical tensor of that name
  std::function<bool(std::string_view tensor)> stored;        // is there a stored tensor of that name
  std::function<std::int64_t(std::string_view tensor)> rows;  // its outermost size, 0 when absent
};

class Expr {
 public:
  Expr() = default;
  static Expr parse(std::string_view text, std::string_view file);  // Error(Recipe) with a caret
  // Error(Model) "…: 'a / b' must be ..." when types don't fit or a division is by zero.
  Json evaluate(const Scope& scope) const;
  std::vector<std::string> keys() const;   // every config key it reads
  std::vector<std::string> names() const;  // every name it reads
  const std::string& text() const { return text_; }
  bool empty() const { return root_ == nullptr; }

 private:
  std::string text_;
  std::shared_ptr<const ExprNode> root_;
};

}  // namespace slmc::ir
