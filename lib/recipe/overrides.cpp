// --set width.ffn=1280: written into the tree before it is decoded, so that a flag is checked like the file.
#include <fmt/format.h>

#include <algorithm>

#include "recipe/decode.h"

namespace slmc::recipe {
namespace {

void mark(Node& node, const Place& place) {
  node.place = place;
  node.flag = true;
  for (Node& item : node.items) mark(item, place);
  for (Entry& e : node.entries) {
    e.key_place = place;
    mark(e.value, place);
  }
}

std::vector<std::string> split(std::string_view path) {
  std::vector<std::string> out;
  for (std::size_t dot; (dot = path.find('.')) != std::string_view::npos; path.remove_prefix(dot + 1))
    out.emplace_back(path.substr(0, dot));
  out.emplace_back(path);
  return out;
}

// The map entry of that name, made when absent.
Node& entry(Node& map, const std::string& key, const Place& place) {
  if (map.kind != Node::Kind::Map) {
    map = Node{};
    map.kind = Node::Kind::Map;
    map.place = place;
  }
  const auto it =
      std::find_if(map.entries.begin(), map.entries.end(), [&](const Entry& e) { return e.key == key; });
  if (it != map.entries.end()) return it->value;
  map.entries.push_back({key, Node{}, place});
  map.entries.back().value.place = place;
  return map.entries.back().value;
}

std::string stage_id(const Node& stage) {
  const Node* id = stage.kind == Node::Kind::Map ? stage.find("id") : nullptr;
  return id && id->kind == Node::Kind::Scalar ? id->text : std::string();
}

// Where the path's first word leads: a stage's `with`, or a top-level key. Null, with a problem, when it is
// neither.
Node* start(Node& root, const std::string& word, const Place& place, const std::string& what, Problems& problems) {
  std::vector<std::string> known = top_level_keys();
  if (std::find(known.begin(), known.end(), word) != known.end()) return &entry(root, word, place);
  if (root.kind == Node::Kind::Map && root.find("stages")) {
    for (Node& stage : entry(root, "stages", root.key_place("stages")).items) {
      if (stage_id(stage) == word && !word.empty()) return &entry(stage, "with", place);
      known.push_back(stage_id(stage));
    }
  }
  problems.push_back(
      {fmt::format("{} must begin with a stage's id or a key of the recipe, but begins with '{}'", what, word),
       place, suggestion(word, known)});
  return nullptr;
}

void apply_one(Node& root, const std::string& assignment, Problems& problems) {
  const Place place{"--set " + assignment, 0, 0, 1, {}};
  const std::size_t equals = assignment.find('=');
  if (equals == std::string::npos || equals == 0) {
    problems.push_back({"a --set must be PATH=VALUE, but is not", place, "for example --set width.ffn=1280"});
    return;
  }
  Problems wrong;
  Node value = parse_document(std::string_view(assignment).substr(equals + 1), "--set", wrong);
  if (!wrong.empty()) {
    problems.push_back({wrong.front().message, place, wrong.front().hint});
    return;
  }
  mark(value, place);
  if (assignment.starts_with("sweep.")) {      // what follows is one key: its dots belong to it
    entry(entry(root, "sweep", place), assignment.substr(6, equals - 6), place) = std::move(value);
    return;
  }
  set_value(root, assignment.substr(0, equals), std::move(value), place, "a --set", problems);
}

}  // namespace

void set_value(Node& root, std::string_view path, Node value, const Place& place, const std::string& what, Problems& problems) {
  const std::vector<std::string> words = split(path);
  Node* at = start(root, words.front(), place, what, problems);
  for (std::size_t i = 1; at != nullptr && i < words.size(); ++i) {
    if (at->kind == Node::Kind::List || (at->kind == Node::Kind::Scalar && !at->flag)) {
      problems.push_back({fmt::format("{} must lead through groups of keys, but '{}' is {}", what, words[i - 1],
                                      at->kind == Node::Kind::List ? "a list" : "a value"),
                          place,
                          {}});
      return;
    }
    at = &entry(*at, words[i], place);
  }
  if (at != nullptr) *at = std::move(value);
}

void apply_overrides(Node& root, const std::vector<std::string>& set, Problems& problems) {
  if (root.kind != Node::Kind::Map) return;
  for (const std::string& assignment : set) apply_one(root, assignment, problems);
}

}  // namespace slmc::recipe
