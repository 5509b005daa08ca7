// sweep: {cut.keep_first: [30, 12, 4], seed: [1, 2, 3]}: every combination of the values, the first key slowest, as trees of their own.
#include <fmt/format.h>

#include <algorithm>

#include "recipe/decode.h"

namespace slmc::recipe {
namespace {

constexpr std::size_t kMostVariants = 1000;

// The texts of a value, as tables show it: 12, or [3, 4].
std::string text_of(const Node& node) {
  if (node.kind != Node::Kind::List) return node.text;
  std::string out;
  for (const Node& item : node.items) out += (out.empty() ? "" : ", ") + text_of(item);
  return "[" + out + "]";
}

bool is_value(const Node& node) {
  return node.kind == Node::Kind::Scalar ||
         (node.kind == Node::Kind::List && std::all_of(node.items.begin(), node.items.end(), [](const Node& n) { return n.kind == Node::Kind::Scalar; }));
}

bool check_values(const std::string& key, const Node& values, const Place& place, Problems& problems) {
  const auto wrong = [&](const char* is) {
    problems.push_back({fmt::format("the sweep of '{}' must be a list of values, but is {}", key, is), values.kind == Node::Kind::Null ? place : values.place,
                        fmt::format("write {}: [...]", key)});
    return false;
  };
  if (values.kind != Node::Kind::List) return wrong(values.kind == Node::Kind::Map ? "a group of keys" : values.kind == Node::Kind::Null ? "empty" : "one value");
  if (values.items.empty()) return wrong("empty");
  std::vector<std::string> seen;
  for (const Node& value : values.items) {
    if (!is_value(value)) {
      problems.push_back({fmt::format("a value of the sweep of '{}' must be a word, a number or a list of them, but is neither", key), value.place, {}});
      return false;
    }
    if (std::find(seen.begin(), seen.end(), text_of(value)) != seen.end()) {
      problems.push_back({fmt::format("each value of the sweep of '{}' must be another, but '{}' comes twice", key, text_of(value)), value.place, {}});
      return false;
    }
    seen.push_back(text_of(value));
  }
  return true;
}

bool check_sweep(const Node& sweep, const Place& place, Problems& problems) {
  if (sweep.kind != Node::Kind::Map || sweep.entries.empty()) {
    problems.push_back({"the key 'sweep' must be a group such as {width.ffn: [1280, 1024]}, but is not", sweep.kind == Node::Kind::Null ? place : sweep.place, {}});
    return false;
  }
  bool sound = true;
  std::size_t variants = 1;
  for (const auto& [key, values, key_place] : sweep.entries) {
    sound &= check_values(key, values, key_place, problems);
    variants = std::min(variants * std::max<std::size_t>(values.items.size(), 1), kMostVariants + 1);
  }
  if (variants > kMostVariants) {
    problems.push_back({fmt::format("a sweep must have at most {} combinations, but has more", kMostVariants), place, {}});
    sound = false;
  }
  return sound;
}

}  // namespace

std::vector<Variant> variants_of(const Node& root, Problems& problems) {
  const Node* sweep = root.kind == Node::Kind::Map ? root.find("sweep") : nullptr;
  if (sweep == nullptr) return {{root, {}}};
  Node base = root;
  std::erase_if(base.entries, [](const Entry& e) { return e.key == "sweep"; });
  if (!check_sweep(*sweep, root.key_place("sweep"), problems)) return {{std::move(base), {}}};
  std::vector<Variant> out = {{std::move(base), {}}};
  for (const auto& [key, values, key_place] : sweep->entries) {
    std::vector<Variant> wider;
    const std::size_t before = problems.size();
    for (const Variant& v : out) {
      for (const Node& value : values.items) {
        Variant next = v;
        if (problems.size() == before) set_value(next.tree, key, value, key_place, "a key of 'sweep'", problems);
        next.values.emplace_back(key, text_of(value));
        wider.push_back(std::move(next));
      }
    }
    out = std::move(wider);
  }
  return out;
}

}  // namespace slmc::recipe
