#pragma once
// A recipe as text: YAML or JSON, read by one decoder into a tree that keeps places. What YAML would guess,
// we don't: a plain scalar stays text until a setting's type reads it, so `no`, `on`, `010` and `1_000` can't
// change their meaning. Refused with a place: duplicate keys, anchors, aliases and merge keys, tags, several
// documents, keys that are not plain words, nesting over 32, more than 100,000 nodes, files over 1 MiB.
// (yaml-cpp 0.7 accepts the first, and counts marks from 0.)
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "core/json.h"

namespace slmc::recipe {

struct Entry;

struct Node {
  enum class Kind { Null, Scalar, List, Map };
  Kind kind = Kind::Null;
  std::string text;            // of a scalar
  bool quoted = false;         // "12" is text, 12 is a number
  bool flag = false;           // came from --set
  Place place;                 // of the value
  std::vector<Node> items;     // of a list
  std::vector<Entry> entries;  // of a map, in order

  const Node* find(std::string_view key) const;
  Place key_place(std::string_view key) const;  // the value's own place when the key is not there
};

struct Entry {
  std::string key;
  Node value;
  Place key_place;
};

inline constexpr std::size_t kMostBytes = 1 << 20, kMostNodes = 100'000, kMostDepth = 32, kMostProblems = 50;

// Parses a whole document. Syntax errors and everything refused above go to `problems`; the tree holds what
// could be read.
Node parse_document(std::string_view text, const std::string& file, std::vector<Diagnostic>& problems);

// Scalars as JSON: plain `true`, `false` and JSON numbers become such, empty and `null` become null;
// everything else is text.
Json to_json(const Node& node);
// The same with every scalar as text, for settings tables, which know what each value is.
Json to_json_texts(const Node& node);
// Every node gets `place`; scalars as they would be typed
Node from_json(const Json& json, const Place& place);

// Throws Error(kind) with all problems sorted by place, when there are any. Their lines are taken from
// `text`, the document's own: nodes don't carry them, because a document may be one long line.
void throw_problems(std::vector<Diagnostic> problems, std::string_view text,
                    ErrorKind kind = ErrorKind::Recipe);

}  // namespace slmc::recipe
