#include "recipe/document.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <istream>
#include <nlohmann/json.hpp>
#include <set>
#include <streambuf>

#include "core/units.h"

namespace slmc::recipe {
namespace {

struct Abort {};  // the tree can't be followed any further; the problem is noted

// Lines of a text, found once; columns of yaml-cpp are bytes from 0, ours are characters from 1.
class Lines {
 public:
  explicit Lines(std::string_view text) : text_(text) {
    starts_.push_back(0);
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (text[i] == '\n') starts_.push_back(i + 1);
    }
  }
  std::string_view line(int number) const {  // from 1
    const auto i = static_cast<std::size_t>(number - 1);
    if (number < 1 || i >= starts_.size()) return {};
    std::string_view out =
        text_.substr(starts_[i], (i + 1 < starts_.size() ? starts_[i + 1] - 1 : text_.size()) - starts_[i]);
    if (out.ends_with('\r')) out.remove_suffix(1);
    return out;
  }
  // Characters in the first `bytes` of a line. Asked for from left to right a line is counted once, however
  // long it is.
  int characters(int number, int bytes) const {
    if (number != counted_line_ || bytes < counted_bytes_) {
      counted_line_ = number;
      counted_bytes_ = counted_ = 0;
    }
    const std::string_view text = line(number);
    for (; counted_bytes_ < std::min(bytes, static_cast<int>(text.size())); ++counted_bytes_) {
      counted_ += (text[static_cast<std::size_t>(counted_bytes_)] & 0xC0) != 0x80;
    }
    return counted_;
  }

 private:
  mutable int counted_line_ = 0, counted_bytes_ = 0, counted_ = 0;
  std::string_view text_;
  std::vector<std::size_t> starts_;
};

class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(const Lines& lines, const std::string& file, std::vector<Diagnostic>& problems)
      : lines_(lines), file_(file), problems_(problems) {}

  Node take() { return std::move(root_); }
  Place place(const YAML::Mark& mark, int width) const {
    if (mark.is_null()) return {file_, 0, 0, 1, {}};
    return {file_, mark.line + 1, lines_.characters(mark.line + 1, mark.column) + 1, std::max(width, 1), {}};
  }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    if (expects_key()) refuse(mark, "a key must be a word, but is empty");
    Node node;
    node.place = place(mark, 1);
    refuse_anchor(mark, anchor);
    add(mark, std::move(node));
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    problem(mark, "a recipe must spell out every value, but this is an alias", "copy the value here");
    if (expects_key()) throw Abort{};
    add(mark, Node{});
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    refuse_anchor(mark, anchor);
    refuse_tag(mark, tag);
    const bool quoted = tag == "!";
    const int width = static_cast<int>(std::min<std::size_t>(value.size() + (quoted ? 2 : 0), 200));
    if (expects_key()) return key(mark, value, quoted, width);
    Node node;
    node.kind = Node::Kind::Scalar;
    node.text = value;
    node.quoted = quoted;
    node.place = place(mark, value.find('\n') == std::string::npos ? width : 1);
    add(mark, std::move(node));
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, Node::Kind::List);
  }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, Node::Kind::Map);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapEnd() override { close(); }

 private:
  struct Open {
    Node node;
    bool has_key = false;
    bool skip_value = false;  // of a key that was there before
    std::string key;
    Place key_place;
    std::set<std::string, std::less<>> keys;
  };

  bool expects_key() const {
    return !open_.empty() && open_.back().node.kind == Node::Kind::Map && !open_.back().has_key;
  }

  void problem(const YAML::Mark& mark, std::string message, std::string hint = {}, int width = 1) {
    if (problems_.size() < kMostProblems)
      problems_.push_back({std::move(message), place(mark, width), std::move(hint)});
  }
  [[noreturn]] void refuse(const YAML::Mark& mark, std::string message, std::string hint = {}) {
    problem(mark, std::move(message), std::move(hint));
    throw Abort{};
  }
  void refuse_anchor(const YAML::Mark& mark, YAML::anchor_t anchor) {
    if (anchor != 0)
      problem(mark, "a recipe must spell out every value, but this has an anchor",
              "remove it, and copy the value where it is used");
  }
  void refuse_tag(const YAML::Mark& mark, const std::string& tag) {
    if (!tag.empty() && tag != "?" && tag != "!") {
      problem(mark, fmt::format("a value must be written without a tag, but has '{}'", tag.substr(0, 60)),
              "remove the tag");
    }
  }

  void key(const YAML::Mark& mark, const std::string& value, bool quoted, int width) {
    Open& map = open_.back();
    map.has_key = true;
    map.key = value;
    map.key_place = place(mark, width);
    map.skip_value = false;
    if (value == "<<" && !quoted) {
      problem(mark, "a recipe must spell out every value, but this is a merge key", "copy the keys here", 2);
      map.skip_value = true;
    } else if (!map.keys.insert(value).second) {
      map.skip_value = true;
      if (problems_.size() >= kMostProblems) return;
      const auto first = std::find_if(map.node.entries.begin(), map.node.entries.end(),
                                      [&](const Entry& e) { return e.key == value; });
      problem(
          mark, fmt::format("the key '{}' must be given once, but is here again", value.substr(0, 60)),
          first != map.node.entries.end() ? fmt::format("it is first in line {}", first->key_place.line) : "",
          width);
    }
  }

  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, Node::Kind kind) {
    if (expects_key())
      refuse(mark, "a key must be a word, but is a list or a group", "is a bracket left open?");
    if (open_.size() >= kMostDepth)
      refuse(mark, fmt::format("a recipe must be nested at most {} deep, but goes deeper", kMostDepth));
    refuse_anchor(mark, anchor);
    refuse_tag(mark, tag);
    count(mark);
    open_.emplace_back();
    open_.back().node.kind = kind;
    open_.back().node.place = place(mark, 1);
  }

  void close() {
    Node node = std::move(open_.back().node);
    open_.pop_back();
    attach(std::move(node));
  }

  void count(const YAML::Mark& mark) {
    if (++nodes_ > kMostNodes)
      refuse(mark, fmt::format("a recipe must have at most {} values, but has more", kMostNodes));
  }
  void add(const YAML::Mark& mark, Node node) {
    count(mark);
    attach(std::move(node));
  }

  void attach(Node node) {
    if (open_.empty()) {
      root_ = std::move(node);
      return;
    }
    Open& parent = open_.back();
    if (parent.node.kind == Node::Kind::List) {
      parent.node.items.push_back(std::move(node));
      return;
    }
    parent.has_key = false;
    if (parent.skip_value) return;
    parent.node.entries.push_back({parent.key, std::move(node), parent.key_place});
  }

  const Lines& lines_;
  const std::string& file_;
  std::vector<Diagnostic>& problems_;
  std::vector<Open> open_;
  std::size_t nodes_ = 0;
  Node root_;
};

// yaml-cpp reads streams; this one reads from memory without a copy.
struct MemoryBuffer : std::streambuf {
  explicit MemoryBuffer(std::string_view text) {
    char* begin = const_cast<char*>(text.data());  // streambuf's interface; nothing writes
    setg(begin, begin, begin + text.size());
  }
};

// yaml-cpp guesses UTF-16 from NUL bytes and takes some control characters for the end of the text.
bool refuse_bytes(std::string_view text, const Lines& lines, const std::string& file,
                  std::vector<Diagnostic>& problems) {
  int line = 1;
  std::size_t line_start = 0;
  const auto fail = [&](std::size_t at, std::string message) {
    problems.push_back({std::move(message),
                        {file, line, lines.characters(line, static_cast<int>(at - line_start)) + 1, 1, {}},
                        {}});
    return true;
  };
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = [&](std::size_t k) {
      return k < text.size() ? static_cast<unsigned char>(text[k]) : 0u;
    };
    const unsigned lead = byte(i);
    if ((lead < 0x20 && lead != '\n' && lead != '\r' && lead != '\t') || lead == 0x7F) {
      return fail(i,
                  fmt::format("a recipe must be plain text, but has the control character 0x{:02X}", lead));
    }
    const std::size_t size = lead < 0x80                   ? 1
                             : lead >= 0xF0 && lead < 0xF5 ? 4
                             : lead >= 0xE0 && lead < 0xF0 ? 3
                             : lead >= 0xC2 && lead < 0xE0 ? 2
                                                           : 0;
    bool valid = size > 0 && !(lead == 0xE0 && byte(i + 1) < 0xA0) &&
                 !(lead == 0xED && byte(i + 1) >= 0xA0) && !(lead == 0xF0 && byte(i + 1) < 0x90) &&
                 !(lead == 0xF4 && byte(i + 1) >= 0x90);
    for (std::size_t k = 1; k < size; ++k) valid = valid && (byte(i + k) & 0xC0) == 0x80;
    if (!valid) return fail(i, fmt::format("a recipe must be UTF-8, but has the byte 0x{:02X}", lead));
    if (lead == '\n') {
      ++line;
      line_start = i + 1;
    }
    i += size;
  }
  return false;
}

std::string syntax_hint(std::string_view line) {
  const std::size_t first = line.find_first_not_of(" \t");
  if (line.substr(0, first).find('\t') != std::string_view::npos)
    return "indent with spaces; YAML forbids tabs there";
  return {};
}

// Bytes that are no UTF-8 would reach the terminal with the error.
std::string printable(std::string_view line) {
  return Json::parse(dump_compact(Json(line))).get<std::string>();
}

bool is_json_number(const std::string& text) {
  if (text.empty() || (text[0] != '-' && (text[0] < '0' || text[0] > '9'))) return false;
  return Json::accept(text) && parse_number(text).has_value();
}

}  // namespace

const Node* Node::find(std::string_view key) const {
  const auto it = std::find_if(entries.begin(), entries.end(), [&](const Entry& e) { return e.key == key; });
  return it == entries.end() ? nullptr : &it->value;
}

Place Node::key_place(std::string_view key) const {
  const auto it = std::find_if(entries.begin(), entries.end(), [&](const Entry& e) { return e.key == key; });
  return it == entries.end() ? place : it->key_place;
}

Node parse_document(std::string_view text, const std::string& file, std::vector<Diagnostic>& problems) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  if (text.size() > kMostBytes) {
    problems.push_back(
        {fmt::format("a recipe must have at most {} bytes, but has {}", kMostBytes, text.size()),
         {file, 0, 0, 1, {}},
         {}});
    return {};
  }
  const Lines lines(text);
  if (refuse_bytes(text, lines, file, problems)) return {};
  TreeBuilder builder(lines, file, problems);
  MemoryBuffer buffer(text);
  std::istream stream(&buffer);
  try {
    YAML::Parser parser(stream);
    parser.HandleNextDocument(builder);
    Node root = builder.take();
    if (parser) {
      TreeBuilder second(lines, file, problems);
      if (parser.HandleNextDocument(second)) {
        problems.push_back({"a recipe must be one document, but another one follows", second.take().place,
                            "remove the line '---'"});
      }
    }
    return root;
  } catch (const Abort&) {
  } catch (const YAML::Exception& error) {
    problems.push_back({fmt::format("the text must be YAML or JSON, but is not: {}", error.msg),
                        builder.place(error.mark, 1),
                        error.mark.is_null() ? "" : syntax_hint(lines.line(error.mark.line + 1))});
  }
  return {};
}

Json to_json(const Node& node) {
  switch (node.kind) {
    case Node::Kind::Null: return nullptr;
    case Node::Kind::Scalar:
      if (!node.quoted && (node.text == "true" || node.text == "false")) return node.text == "true";
      return !node.quoted && is_json_number(node.text) ? Json::parse(node.text) : Json(node.text);
    case Node::Kind::List: {
      Json out = Json::array();
      for (const Node& item : node.items) out.push_back(to_json(item));
      return out;
    }
    case Node::Kind::Map: break;
  }
  Json out = Json::object();
  for (const Entry& e : node.entries) out[e.key] = to_json(e.value);
  return out;
}

Json to_json_texts(const Node& node) {
  if (node.kind == Node::Kind::Scalar) return node.text;
  if (node.kind == Node::Kind::Null) return nullptr;
  Json out = node.kind == Node::Kind::List ? Json::array() : Json::object();
  for (const Node& item : node.items) out.push_back(to_json_texts(item));
  for (const Entry& e : node.entries) out[e.key] = to_json_texts(e.value);
  return out;
}

Node from_json(const Json& json, const Place& place) {
  Node node;
  node.place = place;
  if (json.is_null()) return node;
  if (json.is_object()) {
    node.kind = Node::Kind::Map;
    for (const auto& [key, value] : json.items())
      node.entries.push_back({key, from_json(value, place), place});
  } else if (json.is_array()) {
    node.kind = Node::Kind::List;
    for (const Json& item : json) node.items.push_back(from_json(item, place));
  } else {
    node.kind = Node::Kind::Scalar;
    node.quoted = json.is_string();
    node.text = json.is_string() ? json.get<std::string>() : dump_compact(json);
  }
  return node;
}

void throw_problems(std::vector<Diagnostic> problems, std::string_view text, ErrorKind kind) {
  if (problems.empty()) return;
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  const std::size_t more = problems.size() > kMostProblems ? problems.size() - kMostProblems : 0;
  Error sorted(kind, std::move(problems));
  std::vector<Diagnostic> shown = sorted.diagnostics();
  if (more > 0) shown.resize(kMostProblems);
  const Lines lines(text);
  for (Diagnostic& d : shown) {
    if (d.place.line > 0 && d.place.line_text.empty())
      d.place.line_text = printable(lines.line(d.place.line));
  }
  Error error(kind, std::move(shown));
  if (more > 0) error.while_doing(fmt::format("and {} more problems", more));
  throw error;
}

}  // namespace slmc::recipe
