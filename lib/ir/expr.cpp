#include "ir/expr.h"

#include <cctype>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/units.h"

namespace slmc::ir {

// op: "#" literal, "." key, "$" name, "f" call (text = function), else the operator itself.
struct ExprNode {
  std::string op, text;
  Json literal;
  std::vector<std::shared_ptr<const ExprNode>> parts;
};

namespace {

using Node = std::shared_ptr<const ExprNode>;
constexpr int kMaxNesting = 64;

class Parser {
 public:
  Parser(std::string_view text, std::string_view file) : text_(text), file_(file) {}

  Node whole() {
    Node node = level(0);
    if (peek() != '\0') fail("an expression must end here, but goes on");
    return node;
  }

 private:
  // Operators from loosest to tightest; all associate to the left.
  static const std::vector<std::vector<std::string>>& levels() {
    static const std::vector<std::vector<std::string>> all = {
        {"or"}, {"and"}, {"==", "!=", "<=", ">=", "<", ">"}, {"|"}, {"+", "-"}, {"*", "/", "%"}};
    return all;
  }

  Node level(std::size_t depth) {
    if (depth == levels().size()) return unary();
    Node left = level(depth + 1);
    for (;;) {
      std::string op = take_operator(levels()[depth]);
      if (op.empty()) return left;
      left = make(op, {left, level(depth + 1)});
    }
  }

  std::string take_operator(const std::vector<std::string>& ops) {
    peek();
    for (const std::string& op : ops) {
      if (text_.substr(at_, op.size()) != op) continue;
      const bool word = std::isalpha(static_cast<unsigned char>(op[0])) != 0;
      if (word && at_ + op.size() < text_.size() && is_name(text_[at_ + op.size()])) continue;
      at_ += op.size();
      return op;
    }
    return {};
  }

  Node unary() {
    if (++nesting_ > kMaxNesting) fail("an expression must be nested at most 64 deep, but is deeper");
    Node node;
    if (!take_operator({"not"}).empty())
      node = make("not", {unary()});
    else if (!take_operator({"-"}).empty())
      node = make("neg", {unary()});
    else
      node = primary();
    --nesting_;
    return node;
  }

  Node primary() {
    const char c = peek();
    if (c == '(') {
      ++at_;
      Node node = level(0);
      expect(')');
      return node;
    }
    if (c == '\'') return quoted();
    if (std::isdigit(static_cast<unsigned char>(c))) return number();
    if (c == '.') {
      ++at_;
      return leaf(".", word());
    }
    const std::string name = word();
    if (name == "true" || name == "false" || name == "null") {
      ExprNode node{"#", name, name == "null" ? Json() : Json(name == "true"), {}};
      return std::make_shared<const ExprNode>(std::move(node));
    }
    if (peek() != '(') return leaf("$", name);
    return call(name);
  }

  Node call(const std::string& name) {
    static const std::vector<std::pair<std::string, std::size_t>> functions = {
        {"if", 3},      {"sqrt", 1}, {"floor", 1},  {"at", 2},
        {"present", 1}, {"has", 1},  {"stored", 1}, {"rows", 1}};
    std::size_t wanted = 0;
    for (const auto& [f, n] : functions)
      if (f == name) wanted = n;
    if (wanted == 0)
      fail("a function must be one of if, sqrt, floor, at, present, has, stored, rows, but is '" + name +
           "'");
    ExprNode node{"f", name, {}, {}};
    expect('(');
    do node.parts.push_back(level(0));
    while (take(','));
    expect(')');
    if (node.parts.size() != wanted)
      fail("'" + name + "' must have " + std::to_string(wanted) + " arguments, but has " +
           std::to_string(node.parts.size()));
    if (name == "present" && node.parts[0]->op != ".") fail("'present' must ask for a .key, but does not");
    return std::make_shared<const ExprNode>(std::move(node));
  }

  Node quoted() {
    const std::size_t end = text_.find('\'', at_ + 1);
    if (end == std::string_view::npos) fail("a text must end with a quote, but does not");
    ExprNode node{"#", "", Json(std::string(text_.substr(at_ + 1, end - at_ - 1))), {}};
    at_ = end + 1;
    return std::make_shared<const ExprNode>(std::move(node));
  }

  Node number() {
    std::size_t end = at_;
    auto inside = [&](char c) {
      return std::isdigit(static_cast<unsigned char>(c)) || c == '.' || c == 'e' ||
             ((c == '-' || c == '+') && text_[end - 1] == 'e');
    };
    while (end < text_.size() && inside(text_[end])) ++end;
    const std::string digits(text_.substr(at_, end - at_));
    const std::optional<double> value = parse_number(digits);
    if (!value) fail("a number must be decimal, but is '" + digits + "'");
    const bool whole = digits.find_first_of(".e") == std::string::npos && *value < 9e15;
    ExprNode node{"#", digits, whole ? Json(static_cast<std::int64_t>(*value)) : Json(*value), {}};
    at_ = end;
    return std::make_shared<const ExprNode>(std::move(node));
  }

  std::string word() {
    const std::size_t start = at_;
    while (at_ < text_.size() && is_name(text_[at_])) ++at_;
    if (at_ == start) fail("an expression must go on with a name, a .key or a number, but does not");
    return std::string(text_.substr(start, at_ - start));
  }

  static bool is_name(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.'; }

  static Node leaf(std::string op, std::string text) {
    return std::make_shared<const ExprNode>(ExprNode{std::move(op), std::move(text), {}, {}});
  }
  static Node make(std::string op, std::vector<Node> parts) {
    return std::make_shared<const ExprNode>(ExprNode{std::move(op), {}, {}, std::move(parts)});
  }

  char peek() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool take(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!take(c)) fail(std::string("there must be '") + c + "' here, but is not");
  }
  [[noreturn]] void fail(const std::string& message) const {
    Place place{std::string(file_), 1, static_cast<int>(at_) + 1, 1, std::string(text_)};
    throw Error(ErrorKind::Recipe, std::move(place), message);
  }

  std::string_view text_, file_;
  std::size_t at_ = 0;
  int nesting_ = 0;
};

class Evaluation {
 public:
  Evaluation(const Scope& scope, const std::string& text) : scope_(scope), text_(text) {}

  Json of(const ExprNode& n) const {
    if (n.op == "#") return n.literal;
    if (n.op == ".") {
      const Json* value = scope_.key ? scope_.key(n.text) : nullptr;
      return value ? *value : Json();
    }
    if (n.op == "$") {
      const Json* value = scope_.name ? scope_.name(n.text) : nullptr;
      if (!value) fail("the name '" + n.text + "' must be defined before it is used, but is not");
      return *value;
    }
    if (n.op == "f") return call(n);
    if (n.op == "|") {
      Json first = of(*n.parts[0]);
      return first.is_null() ? of(*n.parts[1]) : first;
    }
    if (n.op == "not") return !truth(of(*n.parts[0]));
    if (n.op == "neg") return negative(of(*n.parts[0]));
    if (n.op == "and") return truth(of(*n.parts[0])) && truth(of(*n.parts[1]));
    if (n.op == "or") return truth(of(*n.parts[0])) || truth(of(*n.parts[1]));
    return binary(n.op, of(*n.parts[0]), of(*n.parts[1]));
  }

 private:
  Json call(const ExprNode& n) const {
    if (n.text == "if") return of(*n.parts[truth(of(*n.parts[0])) ? 1 : 2]);
    if (n.text == "present") return scope_.key && scope_.key(n.parts[0]->text) != nullptr;
    const Json first = of(*n.parts[0]);
    if (n.text == "sqrt") {
      const double x = number(first);
      if (x < 0) fail("the root must be of a number that is not negative, but is of " + first.dump());
      return std::sqrt(x);
    }
    if (n.text == "floor") return whole(std::floor(number(first)));
    if (n.text == "at") {
      const double i = number(of(*n.parts[1]));
      if (!first.is_array() || i < 0 || i >= static_cast<double>(first.size()))
        fail("the list must hold entry " + format_number(i) + ", but has " +
             std::to_string(first.is_array() ? first.size() : 0) + " entries");
      return first[static_cast<std::size_t>(i)];
    }
    if (!first.is_string()) fail("a tensor's name must be a text, but is not");
    if (n.text == "has") return scope_.has && scope_.has(first.get<std::string>());
    if (n.text == "stored") return scope_.stored && scope_.stored(first.get<std::string>());
    return scope_.rows ? scope_.rows(first.get<std::string>()) : std::int64_t{0};
  }

  Json binary(const std::string& op, const Json& a, const Json& b) const {
    if (op == "==" || op == "!=") {
      const bool equal = a.is_number() && b.is_number() ? a.get<double>() == b.get<double>() : a == b;
      return equal == (op == "==");
    }
    const double x = number(a), y = number(b);
    if (op == "<") return x < y;
    if (op == "<=") return x <= y;
    if (op == ">") return x > y;
    if (op == ">=") return x >= y;
    if ((op == "/" || op == "%") && y == 0) fail("a divisor must not be 0, but is");
    const double r = op == "+"   ? x + y
                     : op == "-" ? x - y
                     : op == "*" ? x * y
                     : op == "/" ? x / y
                                 : std::fmod(x, y);
    if (!std::isfinite(r)) fail("the result must be finite, but is not");
    const bool integers = a.is_number_integer() && b.is_number_integer();
    return integers ? whole(r) : Json(r);
  }

  // An integer when it is one: sizes stay integers through * and exact divisions.
  static Json whole(double r) {
    if (r == std::floor(r) && std::abs(r) < 9e15) return static_cast<std::int64_t>(r);
    return r;
  }
  Json negative(const Json& a) const {
    return a.is_number_integer() ? whole(-number(a)) : Json(-number(a));
  }

  double number(const Json& v) const {
    if (!v.is_number()) fail("a number is needed, but there is " + shown(v));
    return v.get<double>();
  }
  bool truth(const Json& v) const {
    if (v.is_null()) return false;
    if (!v.is_boolean()) fail("true or false is needed, but there is " + shown(v));
    return v.get<bool>();
  }
  static std::string shown(const Json& v) {
    std::string text = v.is_null() ? "no value" : dump_compact(v);
    return text.size() > 60 ? text.substr(0, 57) + "..." : text;
  }
  [[noreturn]] void fail(const std::string& message) const {
    throw Error(ErrorKind::Model, message, "while working out '" + text_ + "'");
  }

  const Scope& scope_;
  const std::string& text_;
};

// Texts of the leaves of one kind: "." keys, "$" names.
void collect(const ExprNode& n, const char* op, std::vector<std::string>& texts) {
  if (n.op == op) texts.push_back(n.text);
  for (const Node& part : n.parts) collect(*part, op, texts);
}

}  // namespace

Expr Expr::parse(std::string_view text, std::string_view file) {
  if (text.size() > 4000)
    throw Error(ErrorKind::Recipe, Place{std::string(file), 0, 0, 1, {}},
                "an expression must be at most 4000 characters, but is longer");
  Expr e;
  e.text_ = std::string(text);
  e.root_ = Parser(text, file).whole();
  return e;
}

Json Expr::evaluate(const Scope& scope) const {
  SLMC_CHECK(root_ != nullptr);
  return Evaluation(scope, text_).of(*root_);
}

std::vector<std::string> Expr::keys() const {
  std::vector<std::string> keys;
  if (root_) collect(*root_, ".", keys);
  return keys;
}

std::vector<std::string> Expr::names() const {
  std::vector<std::string> names;
  if (root_) collect(*root_, "$", names);
  return names;
}

}  // namespace slmc::ir
